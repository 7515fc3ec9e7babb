/** Options that say which activations are read: sites, layers, tokens. */
import { Option } from "commander";
import type { Site, TokenSelector } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { matchTokenRange } from "./numbers.js";
import { argument } from "./options.js";

const SITES = new Map<string, Site>([
  ["resid-pre", "SITE_RESID_PRE"],
  ["attn-out", "SITE_ATTN_OUT"],
  ["mlp-out", "SITE_MLP_OUT"],
  ["resid-post", "SITE_RESID_POST"],
  ["final-norm", "SITE_FINAL_NORM"],
]);

const SITE_NAMES = [...SITES.keys()].join(", ");

/** `--site`, which may be repeated. */
export const sitesOption = () =>
  new Option("--site <SITE>", `${SITE_NAMES}; may be repeated (default: resid-post)`).argParser(
    (text, before: Site[] | undefined) => [
      ...new Set([...(before ?? []), argument(parseSite)(text)]),
    ],
  );

function parseSite(text: string): Site {
  const site = SITES.get(text);
  if (!site) throw new UsageError(`there are ${SITE_NAMES}`);
  return site;
}

/** `--tokens`. `fallback`: what holds when it is not given. */
export const tokensOption = (fallback: "all" | "last") =>
  new Option(
    "--tokens <WHICH>",
    "all, last, [START..END] (negative: from the prompt's end) or after=TEXT",
  )
    .argParser(argument(parseTokens))
    .default(parseTokens(fallback), fallback);

function parseTokens(text: string): TokenSelector {
  if (text === "all") return { all: {} };
  if (text === "last") return { last: {} };
  if (/^after=./s.test(text)) return { afterText: text.slice("after=".length) };
  const range = matchTokenRange(text);
  if (range) return { range };
  throw new UsageError(`"${text}" is neither all, last, a range such as [-3..], nor after=TEXT`);
}
