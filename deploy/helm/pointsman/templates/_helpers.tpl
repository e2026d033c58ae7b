{{- define "pointsman.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end -}}
{{- end }}

{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pointsman.labels" -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pointsman.metadata" -}}
name: {{ include "pointsman.name" . }}
namespace: {{ .Release.Namespace }}
labels: {{- include "pointsman.labels" . | nindent 2 }}
{{- end }}

{{- define "pointsman.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The name of the Secret with the keys, or nothing. */}}
{{- define "pointsman.keys" -}}
{{- if .Values.keys.existingSecret }}{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.data }}{{ include "pointsman.name" . }}-keys{{ end -}}
{{- end }}

{{/* Refuses what would start and do harm, or not start at all. */}}
{{- define "pointsman.check" -}}
{{- if not .Values.policy }}{{ fail "no policy: set one with --set-file policy=FILE" }}{{ end }}
{{- $policy := fromYaml .Values.policy }}
{{- with $policy.Error }}{{ fail (printf "policy: %s" .) }}{{ end }}
{{- if not .Values.providers }}{{ fail "no providers: set each one's cluster with --set-file providers.NAME=FILE" }}{{ end }}
{{- range $name, $_ := $policy.providers }}
{{- if not (hasKey $.Values.providers $name) }}{{ fail (printf "no cluster for provider %q: set it with --set-file providers.%s=FILE" $name $name) }}{{ end }}
{{- end }}
{{- $replicas := int .Values.replicas }}
{{- if .Values.autoscaling.enabled }}{{ $replicas = int .Values.autoscaling.maxReplicas }}{{ end }}
{{- if and (gt $replicas 1) (not $policy.redis) }}
{{- fail (printf "%d replicas without Redis: each replica would count quotas and budgets by itself, and a tenant would get up to %d times its limits. Add the section `redis` to the policy, or set replicas to 1 and autoscaling.enabled to false" $replicas $replicas) }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}{{ fail "metrics.serviceMonitor.enabled needs metrics.enabled" }}{{ end }}
{{- if and .Values.metrics.enabled .Values.networkPolicy.enabled (not .Values.metrics.from) }}{{ fail "metrics.enabled: say in metrics.from who may reach the admin interface, which can also drain Envoy" }}{{ end }}
{{- end }}
