// JSON without loss: an int of 64 bits becomes a BigInt where a number could not hold it.
const { parse, stringify } = globalThis.LosslessJSON;
const INT = /^-?\d+$/;

const number = (text) => {
  const value = Number(text);
  return INT.test(text) && !Number.isSafeInteger(value) ? BigInt(text) : value;
};

export const read = (text) => parse(text, null, number);
export const write = (value, indent) => stringify(value, null, indent) ?? "null";

// What a person typed as a value: JSON if it is some, else text.
export const typed = (text) => {
  try {
    return read(text);
  } catch {
    return text;
  }
};

// An id as it was typed: digits are an int, anything else a str; digits in quotes are a str too.
export const typedId = (text) => {
  const trimmed = text.trim();
  if (INT.test(trimmed)) return number(trimmed);
  if (trimmed.startsWith('"')) {
    const value = typed(trimmed);
    if (typeof value === "string") return value;
  }
  return trimmed;
};

// Several ids, separated by commas; what stands in quotes may have commas of its own.
export const typedIds = (text) => (text.match(/\s*"(?:[^"\\]|\\.)*"\s*|[^,]+/g) ?? []).filter((part) => part.trim()).map(typedId);

// The marked passage of a text: the server marks words with <b> and escapes the rest. It is taken apart, never inserted.
export const passage = (marked) => {
  const parts = [];
  for (const piece of marked.split(/(<b>.*?<\/b>)/s)) {
    const bold = piece.startsWith("<b>") && piece.endsWith("</b>");
    const text = bold ? piece.slice(3, -4) : piece;
    if (text) parts.push({ bold, text: plain(text) });
  }
  return parts;
};
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'", "&#39;": "'", "&amp;": "&" };
const plain = (text) => text.replace(/&(?:lt|gt|quot|#x27|#39|amp);/g, (entity) => ENTITIES[entity]);

// Little-endian float32 in base64, as the server tells vectors.
export const unpack = ({ base64 }) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, at) => view.getFloat32(4 * at, true));
};
export const pack = (vectors) => {
  const bytes = new Uint8Array(4 * vectors.reduce((sum, vector) => sum + vector.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const vector of vectors) for (const value of vector) view.setFloat32((at += 4) - 4, value, true);
  let text = "";
  for (let from = 0; from < bytes.length; from += 8192) text += String.fromCharCode(...bytes.subarray(from, from + 8192));
  return { base64: btoa(text) };
};
