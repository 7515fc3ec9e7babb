/** What several commands need to declare their options with commander. */
import { InvalidArgumentError, Option } from "commander";
import { UsageError } from "../exit.js";
import { parseInteger, parseLayers, parseNumber } from "./numbers.js";

/** Heading of commander's own in --help; options that belong together have another. */
export const DEFAULT_GROUP = "Options:";

/** A parser of ours as commander wants it, which names the option and its argument itself. */
export function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof UsageError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** For options that may be repeated. */
export const collect = (value: string, values: string[] | undefined): string[] => [
  ...(values ?? []),
  value,
];

export const number = (flags: string, description: string): Option =>
  new Option(flags, description).argParser(argument(parseNumber));

export const integer = (flags: string, description: string, least = 0): Option =>
  new Option(flags, description).argParser(argument((text) => parseInteger(text, least)));

export const layersOption = (description: string): Option =>
  new Option("-l, --layers <LAYERS>", description).argParser(argument(parseLayers));
