/** One process at a time works in a run's folder. */
import { readFileSync } from "node:fs";
import { open, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { StudyError } from "../plan/server.js";

/** Returns what lets go of the folder. A lock whose process is gone is taken over. Throws a StudyError. */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const file = path.join(folder, "lock");
  const mine = `${process.pid} ${startOf(process.pid)}`;
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const handle = await open(file, "wx");
      await handle.writeFile(mine);
      await handle.close();
      return () => rm(file, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const owner = await readFile(file, "utf8").catch(() => "");
    const [pid, start] = owner.split(" ");
    if (isAlive(Number(pid)) && startOf(Number(pid)) === start) {
      throw new StudyError(`${folder}: the process ${pid} is running this study`);
    }
    await rm(file, { force: true });
  }
  throw new StudyError(`${folder}: another process took the folder`);
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** When the process began, so that its number given again is no lock; "" where Linux's /proc is missing. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 22, counted from behind the name, which may hold anything.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}
