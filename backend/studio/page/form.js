// multipart/form-data by hand, in a Blob: what is sent can then be hashed before it is sent.

const quoted = (text) => text.replace(/[\r\n"\\]/g, (sign) => `%${sign.charCodeAt(0).toString(16).padStart(2, "0").toUpperCase()}`);

/** Return {body, headers} of a form. parts : [name, text or File] in order; what is null or "" is left out. */
export function form(parts) {
  const boundary = `studio-${crypto.randomUUID()}`;
  const pieces = [];
  for (const [name, value] of parts) {
    if (value === null || value === undefined || value === "") continue;
    pieces.push(`--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"`);
    if (value instanceof Blob) {
      const type = value.type || "application/octet-stream";
      pieces.push(`; filename="${quoted(value.name || "picture")}"\r\nContent-Type: ${type}\r\n\r\n`, value, "\r\n");
    } else pieces.push(`\r\n\r\n${value}\r\n`);
  }
  pieces.push(`--${boundary}--\r\n`);
  return { body: new Blob(pieces), headers: { "Content-Type": `multipart/form-data; boundary=${boundary}` } };
}
