// The same request from a program: with curl and openssl, and with the Python client.

const CLIENT_NAMES = { format: "format", quality: "quality", scale_mm: "scale_mm", color: "color", seed: "seed", remove_background: "remove_background", objects: "objects", target_faces: "target_faces" };
const DEFAULTS = { quality: 7, scale_mm: 100, color: "auto", remove_background: "auto", objects: "all", format: "glb" };

function fields(job) {
  const given = Object.entries(CLIENT_NAMES).map(([name]) => [name, job.request?.[name]]);
  return given.filter(([name, value]) => value !== undefined && value !== null && value !== DEFAULTS[name]);
}

const quote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

export function curl(job, agentId) {
  const forms = [...fields(job), ["async", "true"]].map(([name, value]) => `  printf -- '--b\\r\\nContent-Disposition: form-data; name="${name}"\\r\\n\\r\\n%s\\r\\n' ${quote(value)}`);
  return `# The key is in ORFEAS_API_KEY; docs/signing.md explains each line.
agent=${quote(agentId)} url=${quote(location.origin)} target=/api/agent/generate-3d image=${quote(job.filename ?? "picture.png")}
{
${forms.join("\n")}
  printf -- '--b\\r\\nContent-Disposition: form-data; name="image"; filename="picture"\\r\\n\\r\\n'
  cat "$image"
  printf '\\r\\n--b--\\r\\n'
} > body.bin
digest=$(openssl dgst -sha256 -r body.bin | cut -d' ' -f1) nonce=$(openssl rand -hex 16) now=$(date +%s)
signature=$(printf 'v1\\nPOST\\n%s\\n\\n%s\\n%s\\n%s\\n%s' "$target" "$agent" "$now" "$nonce" "$digest" |
  openssl dgst -sha256 -hmac "$ORFEAS_API_KEY" -r | cut -d' ' -f1)
curl "$url$target" --data-binary @body.bin -H 'Content-Type: multipart/form-data; boundary=b' \\
  -H "X-Agent-ID: $agent" -H "X-Agent-Timestamp: $now" -H "X-Agent-Nonce: $nonce" \\
  -H "X-Agent-Content-SHA256: $digest" -H "X-Agent-Signature: $signature"
`;
}

export function python(job, agentId) {
  const text = (value) => (typeof value === "number" ? String(value) : JSON.stringify(value));
  const given = fields(job).map(([name, value]) => `, ${name}=${text(value)}`).join("");
  return `import os

from orfeas_client import AgentClient

client = AgentClient(${text(location.origin)}, ${text(agentId)}, os.environ["ORFEAS_API_KEY"])
job = client.wait(client.generate(${text(job.filename ?? "picture.png")}${given}).id)
client.download(job.download_url, "mesh.${job.request?.format?.split(",")[0] ?? "glb"}")
`;
}
