/** Connections of TCP that send bytes as they are, in pieces, and leave in one way or another. */
import { connect } from "node:net";
import { pick, type Random } from "../mutate.js";

const MAX_PIECES = 4;
/** A connection on which so little happens is left. */
const SILENCE_MS = 20;

/** `nothing`: until there is silence. `half`: it goes on reading. `deaf`: it never reads. */
const ENDINGS = ["nothing", "nothing", "half", "deaf", "destroy", "reset"] as const;

/** Resolves when the connection is closed on this side. */
export function sendBytes(address: string, bytes: Buffer, random: Random): Promise<void> {
  const at = address.lastIndexOf(":");
  const pieces = 1 + Math.floor(random() * MAX_PIECES);
  const cuts = Array.from({ length: pieces - 1 }, () => Math.floor(random() * bytes.length));
  const ends = [...cuts.sort((a, b) => a - b), bytes.length];
  const ending = pick(random, ENDINGS);
  return new Promise((resolve) => {
    const socket = connect(Number(address.slice(at + 1)), address.slice(0, at));
    socket.setNoDelay(true);
    socket.setTimeout(SILENCE_MS, () => socket.destroy());
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    if (ending !== "deaf") socket.resume();
    let sent = 0;
    const next = () => {
      if (socket.destroyed) return;
      const end = ends.shift();
      if (end === undefined) return leave();
      socket.write(bytes.subarray(sent, end), () => setImmediate(next));
      sent = end;
    };
    const leave = () => {
      if (ending === "half") socket.end();
      else if (ending === "destroy") socket.destroy();
      else if (ending === "reset") socket.resetAndDestroy();
    };
    socket.once("connect", next);
  });
}
