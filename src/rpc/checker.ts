/** Collects what is wrong with a request, so that a client hears of every field at once. */
import { type FieldViolation, InvalidArgumentError } from "../errors.js";

const MAX_FLOAT32 = 3.4028234663852886e38;
/** A range for `Checker.number` that refuses NaN and infinities only. */
export const FINITE_FLOAT32 = { min: -MAX_FLOAT32, max: MAX_FLOAT32 };

export class Checker {
  private readonly violations: FieldViolation[] = [];

  add(field: string, description: string): void {
    this.violations.push({ field, description });
  }

  /** A number of entries, bytes, … that must not pass a limit. */
  atMost(field: string, count: number, limit: number, what: string): void {
    if (count > limit) this.add(field, `${count} ${what}; the limit is ${limit}`);
  }

  /** `value`, or `fallback` when absent. Bounds belong to the range unless they are said to be open. */
  number(
    field: string,
    value: number | undefined,
    fallback: number,
    range: { min: number; max: number; openMin?: boolean },
  ): number {
    if (value === undefined) return fallback;
    const { min, max, openMin = false } = range;
    // Written so that NaN is refused too.
    const inside = (openMin ? value > min : value >= min) && value <= max;
    if (!inside) this.add(field, `${value} is not in ${openMin ? "(" : "["}${min}, ${max}]`);
    return value;
  }

  /** The meaning of an enum value; numbers that the contract does not know are refused. */
  enumValue<T>(
    field: string,
    value: string | number,
    meanings: ReadonlyMap<string, T>,
    fallback: T,
  ) {
    const meaning = meanings.get(String(value));
    if (meaning === undefined) this.add(field, `${value} is not one of its values`);
    return meaning ?? fallback;
  }

  throwIfAny(): void {
    if (this.violations.length > 0) throw new InvalidArgumentError(this.violations);
  }
}
