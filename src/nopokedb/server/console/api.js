// Requests to the server that the page came from. The key lives in this tab only.
import { read, write } from "./json.js";

const KEY = "nopokedb-key";
let wanted = () => {};
export const onKeyWanted = (listener) => (wanted = listener);
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));
export const setKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

export class ServerError extends Error {
  constructor(status, type, message) {
    super(message);
    Object.assign(this, { status, type });
  }
}

export const request = async (method, path, body) => {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : write(body) });
  } catch {
    throw new ServerError(0, "No answer", "The server cannot be reached. Is it running?");
  }
  const text = await response.text();
  if (response.ok) return (response.headers.get("Content-Type") ?? "").startsWith("application/json") ? read(text) : text;
  if (response.status === 401) wanted();
  let error = {};
  try {
    error = read(text).error ?? {};
  } catch {
    // Not from this server, or cut off: the status has to do.
  }
  throw new ServerError(response.status, error.type ?? `Status ${response.status}`, error.message ?? response.statusText);
};

const at = (name, rest = "") => `/v1/collections/${encodeURIComponent(name)}${rest}`;

export const api = {
  collections: async () => (await request("GET", "/v1/collections")).collections,
  describe: (name) => request("GET", at(name)),
  stats: (name) => request("GET", at(name, "/stats")),
  scan: (name, body) => request("POST", at(name, "/scan"), body),
  count: async (name, where) => (await request("POST", at(name, "/count"), where ? { where } : {})).count,
  get: async (name, id, include) => (await request("POST", at(name, "/records/get"), { ids: [id], include })).records[0],
  query: (name, body) => request("POST", at(name, "/query"), body),
  explain: (name, body) => request("POST", at(name, "/explain"), body),
  sample: async (name, body) => (await request("POST", at(name, "/sample"), body)).records,
  measureRecall: (name, body) => request("POST", at(name, "/measure_recall"), body),
  snapshots: (name) => request("GET", at(name, "/snapshots")),
  makeSnapshot: (name, snapshot) => request("PUT", at(name, `/snapshots/${encodeURIComponent(snapshot)}`)),
  dropSnapshot: (name, snapshot) => request("DELETE", at(name, `/snapshots/${encodeURIComponent(snapshot)}`)),
  rollback: (name, snapshot) => request("POST", at(name, `/snapshots/${encodeURIComponent(snapshot)}/rollback`)),
  begin: (name, kind, body) => request("POST", at(name, `/${kind}`), body),
  backups: async (name) => (await request("GET", at(name, "/backups"))).backups,
  job: (id) => request("GET", `/v1/jobs/${encodeURIComponent(id)}`),
  jobs: async () => (await request("GET", "/v1/jobs")).jobs,
  metrics: () => request("GET", "/metrics"),
  ready: async () => {
    try {
      return await request("GET", "/readyz");
    } catch (error) {
      return { status: error.status === 503 ? "not ready" : "unreachable", reasons: [error.message] };
    }
  },
};
