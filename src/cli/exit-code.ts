/** How commands end. */
export const ExitCode = {
  DONE: 0,
  FAILED: 1,
  /** Wrong usage or configuration. */
  USAGE: 2,
  INTERRUPTED: 130,
} as const;
