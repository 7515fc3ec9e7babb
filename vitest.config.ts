import { defineConfig } from "vitest/config";

// Tests wait for what happens, never for a time; the limit only ends a test that hangs.
export default defineConfig({ test: { testTimeout: 60_000, hookTimeout: 60_000 } });
