// The members that render writes in Istio's kinds. Istio's own definitions let unknown ones pass, and the API server
// drops them without a word.

const anything = null;
const port = { number: anything };

const members = {
  EnvoyFilter: {
    priority: anything,
    workloadSelector: { labels: anything },
    configPatches: {
      applyTo: anything,
      match: {
        context: anything,
        proxy: { proxyVersion: anything },
        listener: {
          portNumber: anything,
          filterChain: { filter: { name: anything, subFilter: { name: anything } } },
        },
        routeConfiguration: { portNumber: anything, gateway: anything, vhost: { name: anything } },
      },
      patch: { operation: anything, value: anything },
    },
  },
  Gateway: {
    selector: anything,
    servers: { port: { ...port, name: anything, protocol: anything }, hosts: anything, tls: { mode: anything } },
  },
  DestinationRule: {
    host: anything,
    subsets: {
      name: anything,
      trafficPolicy: { portLevelSettings: { port, tls: { mode: anything, sni: anything } } },
    },
  },
  VirtualService: {
    hosts: anything,
    gateways: anything,
    http: {
      match: { gateways: anything, port: anything },
      route: { destination: { host: anything, subset: anything, port } },
      retries: { attempts: anything },
    },
  },
};

/** Returns the path of a member that the kind does not have. */
export function unknownMember(object) {
  const known = members[object.kind];
  return known && find(object.spec, known, "spec");
}

function find(value, known, path) {
  if (known === anything) return undefined;
  if (Array.isArray(value)) return value.map((item, i) => find(item, known, `${path}[${i}]`)).find(Boolean);
  for (const [name, member] of Object.entries(value)) {
    const at = `${path}.${name}`;
    if (!(name in known)) return at;
    const found = find(member, known[name], at);
    if (found) return found;
  }
}
