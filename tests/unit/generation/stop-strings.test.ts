/** Stop texts across token boundaries. */
import { describe, expect, it } from "vitest";
import { StopStrings } from "../../../src/generation/stop-strings.js";

/** What comes out, piece by piece, and whether it stopped. */
function run(stops: string[], pieces: string[]) {
  const matcher = new StopStrings(stops);
  const given: string[] = [];
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece);
    given.push(text);
    if (stopped) return { given, text: given.join(""), stopped };
  }
  given.push(matcher.flush());
  return { given, text: given.join(""), stopped: false };
}

describe("StopStrings", () => {
  it("gives everything out at once without stop texts", () => {
    expect(run([], ["a", "b"]).given).toEqual(["a", "b", ""]);
  });

  it("holds back what may begin a stop text, and gives it out when it does not", () => {
    expect(run(["###"], ["a#", "#b", "c"]).given).toEqual(["a", "##b", "c", ""]);
  });

  it("gives out at the end what was held back", () => {
    expect(run(["stop"], ["sto"])).toMatchObject({ text: "sto", stopped: false });
  });

  it("finds a stop text that spans many tokens, and ends before it", () => {
    expect(run(["END"], ["xE", "N", "Dy"])).toMatchObject({ text: "x", stopped: true });
  });

  it("takes the stop text that begins first", () => {
    expect(run(["cd", "bcx"], ["abcxcd"])).toMatchObject({ text: "a", stopped: true });
  });

  it("finds a match after a partial one that failed", () => {
    expect(run(["aab"], ["aa", "ab", "!"])).toMatchObject({ text: "a", stopped: true });
  });

  it("ends with the same text however the text is cut", () => {
    const text = "one two END three";
    const stops = ["two END", "END t", "ee"];
    for (let a = 0; a <= text.length; a++) {
      for (let b = a; b <= text.length; b++) {
        const pieces = [text.slice(0, a), text.slice(a, b), text.slice(b)];
        expect(run(stops, pieces)).toMatchObject({ text: "one ", stopped: true });
      }
    }
  });

  it("never gives out what a later token turns into a stop text", () => {
    const text = "abcabcabd";
    for (let cut = 1; cut < text.length; cut++) {
      const pieces = [text.slice(0, cut), ...text.slice(cut)];
      expect(run(["abcabd"], pieces)).toMatchObject({ text: "abc", stopped: true });
    }
  });
});
