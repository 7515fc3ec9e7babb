/** Who had the processors: this process, the server, or others on the machine. */
import { readFileSync } from "node:fs";
import os from "node:os";

/** Seconds of all processors since the start of the system, from proc_stat(5). */
function machineSeconds() {
  const line = readFileSync("/proc/stat", "utf8").split("\n", 1)[0];
  const [user, nice, system, idle, iowait, irq, softirq, steal] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map((ticks) => Number(ticks) / 100);
  const busy = user + nice + system + irq + softirq;
  return { busy, idle: idle + iowait, stolen: steal };
}

function ownSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Starts to count; the function that it returns gives processors in use since then, on average. */
export function watchProcessors(server) {
  const read = () => ({
    server: server.cpuSeconds(),
    clients: ownSeconds(),
    ...machineSeconds(),
    at: performance.now() / 1000,
  });
  const begin = read();
  return () => {
    const end = read();
    const seconds = end.at - begin.at;
    const of = (name) => (end[name] - begin[name]) / seconds;
    return {
      cores: os.cpus().length,
      server: of("server"),
      clients: of("clients"),
      others: Math.max(0, of("busy") - of("server") - of("clients")),
      stolen: of("stolen"),
      idle: of("idle"),
    };
  };
}
