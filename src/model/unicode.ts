/** A surrogate that is no half of a pair: UTF-8 has no bytes for it. */
export function hasLoneSurrogate(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}
