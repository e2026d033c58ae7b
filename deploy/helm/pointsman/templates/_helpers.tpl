{{/* The name of a Service has at most 63 characters, and the longest suffix, `-providers`, has 10. */}}
{{- define "pointsman.name" -}}
{{- $name := printf "%s-%s" .Release.Name .Chart.Name }}
{{- if contains .Chart.Name .Release.Name }}{{ $name = .Release.Name }}{{ end }}
{{- $name | trunc 53 | trimSuffix "-" }}
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

{{/* Refuses what would start and do harm, or not start at all. `pointsman check` finds the rest of a policy's mistakes. */}}
{{- define "pointsman.check" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) }}{{ fail (printf "release name %q: a Service would have it, whose name begins with a letter and has no dot" .Release.Name) }}{{ end }}
{{- if not .Values.policy }}{{ fail "no policy: set one with --set-file policy=FILE" }}{{ end }}
{{- $policy := fromYaml .Values.policy }}
{{- with $policy.Error }}{{ fail (printf "policy: %s" .) }}{{ end }}
{{- if not .Values.providers }}{{ fail "no providers: set each one's cluster with --set-file providers.NAME=FILE" }}{{ end }}
{{- if not (kindIs "map" $policy.providers) }}{{ fail "policy: `providers` is not a mapping of names to providers; run `pointsman check`" }}{{ end }}
{{- range $name, $provider := $policy.providers }}
{{- if not (hasKey $.Values.providers $name) }}{{ fail (printf "no cluster for provider %q: set it with --set-file providers.%s=FILE" $name $name) }}{{ end }}
{{- if not (kindIs "map" $provider) }}{{ fail (printf "policy: providers.%s is not a mapping; run `pointsman check`" $name) }}{{ end }}
{{- include "pointsman.checkKey" (dict "values" $.Values "name" $name "credential" $provider.credential) }}
{{- end }}
{{- if and (hasKey $policy "redis") (not (kindIs "map" $policy.redis)) }}{{ fail "policy: `redis` is not a mapping; run `pointsman check`" }}{{ end }}
{{- with $policy.redis }}
{{- $cluster := toString (.cluster | default "") }}
{{- if not (hasKey $.Values.providers $cluster) }}{{ fail (printf "no cluster for the Redis bridge %q, which the policy names in redis.cluster: set it with --set-file providers.%s=FILE" $cluster $cluster) }}{{ end }}
{{- end }}
{{- $replicas := int .Values.replicas }}
{{- if .Values.autoscaling.enabled }}
{{- $replicas = int .Values.autoscaling.maxReplicas }}
{{- if gt (int .Values.autoscaling.minReplicas) $replicas }}{{ fail (printf "autoscaling.minReplicas is %d, above autoscaling.maxReplicas, which is %d" (int .Values.autoscaling.minReplicas) $replicas) }}{{ end }}
{{- end }}
{{- if and (gt $replicas 1) (not $policy.redis) }}
{{- fail (printf "%d replicas without Redis: each replica would count quotas and budgets by itself, and a tenant would get up to %d times its limits. Add the section `redis` to the policy, or set replicas to 1 and autoscaling.enabled to false" $replicas $replicas) }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}{{ fail "metrics.serviceMonitor.enabled needs metrics.enabled" }}{{ end }}
{{- if and .Values.metrics.enabled .Values.networkPolicy.enabled (not .Values.metrics.from) }}{{ fail "metrics.enabled: say in metrics.from who may reach the metrics, which name tenants" }}{{ end }}
{{- $families := .Values.service.ipFamilies }}
{{- $policy6 := has .Values.service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack") }}
{{- if and (or (has "IPv6" $families) $policy6) (ne .Values.listenAddress "[::]") }}{{ fail "service: the gateway would not listen at the IPv6 addresses of its pods: set listenAddress to \"[::]\"" }}{{ end }}
{{- if and .Values.service.loadBalancerSourceRanges (ne .Values.service.type "LoadBalancer") }}{{ fail "service.loadBalancerSourceRanges has an effect only with service.type LoadBalancer; use networkPolicy.from" }}{{ end }}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" }}
{{- if hasKey $.Values.podLabels $label }}{{ fail (printf "podLabels: %s is the label by which the Deployment and the Service find their pods; remove it" $label) }}{{ end }}
{{- end }}
{{- range $arg := .Values.extraArgs }}
{{- range $flag, $value := dict "--policy" "policy" "--providers" "providers" "--listen" "listenAddress" "--admin" "metrics.enabled" "--metrics" "metrics.enabled" "--concurrency" "concurrency" "--max-heap" "maxHeap" "--drain" "drainSeconds" }}
{{- if or (eq $arg $flag) (hasPrefix (printf "%s=" $flag) $arg) }}{{ fail (printf "extraArgs: %s is set by the chart; use %s" $flag $value) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses a provider whose key the pod would not have. */}}
{{- define "pointsman.checkKey" -}}
{{- $keys := .values.keys }}
{{- if .credential }}
{{- if not (kindIs "map" .credential) }}{{ fail (printf "policy: providers.%s.credential is not a mapping; run `pointsman check`" .name) }}{{ end }}
{{- if not (has "--allow-missing-credentials" .values.extraArgs) }}
{{- $entry := "" }}
{{- with .credential.env }}
{{- $entry = toString . }}
{{- if not $keys.environment }}{{ fail (printf "provider %q takes its key from the environment variable %s: set keys.environment to true, and keys.existingSecret to a Secret with this entry" $.name $entry) }}{{ end }}
{{- end }}
{{- with .credential.file }}
{{- if hasPrefix "/etc/pointsman/keys/" (toString .) }}{{ $entry = trimPrefix "/etc/pointsman/keys/" (toString .) }}{{ end }}
{{- end }}
{{- if and $entry (not $keys.existingSecret) (not (hasKey $keys.data $entry)) }}{{ fail (printf "provider %q has no key: set keys.existingSecret to a Secret with the entry %s" .name $entry) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
