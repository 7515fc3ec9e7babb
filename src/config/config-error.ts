/** Wrong usage or configuration: exit code 2. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}
