// Where in the console one is: the part of the address behind #, so that back, forward and links work.
const parts = () => location.hash.split("/").map((part) => decodeURIComponent(part));

export const place = () => {
  const [, kind, name, tab, rest] = parts();
  return { kind, name, tab, rest };
};
export const to = (...path) => "#/" + path.map((part) => encodeURIComponent(part)).join("/");
export const go = (...path) => {
  location.hash = to(...path);
};
