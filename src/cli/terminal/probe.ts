/** A probe of the registry, as lines for people. */
import type { Discrimination, Probe } from "../../client/client.js";
import { formatNumber, shortDigest } from "./proof.js";
import { percent } from "./table.js";
import { derivationLine, labelsOf } from "./vector.js";

/** `defection@sha256:0123456789ab  layer 4  threshold 1.23 at 1% false positives  set=train` */
export function probeSummary({ probeId, digest, layer, calibration, labels }: Probe): string {
  return [
    `${probeId}@${shortDigest(digest)}`,
    `layer ${layer}`,
    calibration
      ? `threshold ${formatNumber(calibration.threshold)} at ${percent(calibration.falsePositiveRate)} false positives`
      : "not calibrated",
    ...labelsOf(labels),
  ].join("  ");
}

export function printProbe(probe: Probe, { json }: { json?: boolean }): void {
  process.stdout.write(json ? `${JSON.stringify(probe)}\n` : describeProbe(probe));
}

function describeProbe(probe: Probe): string {
  const { derivation, fit, calibration, l2Norm } = probe;
  const lines = [probeSummary(probe)];
  if (derivation) lines.push(`  ${derivationLine(derivation)}  ‖d‖ ${formatNumber(l2Norm)}`);
  if (fit) lines.push(`  on its own pairs: ${discriminationLine(fit)}`);
  if (calibration) {
    const { benignInputs, measuredFalsePositiveRate, benignMean } = calibration;
    const spread = formatNumber(calibration.benignStandardDeviation);
    lines.push(
      `  calibrated on ${benignInputs} benign texts, ${percent(measuredFalsePositiveRate)} of which fire; ` +
        `their scores: mean ${formatNumber(benignMean)}, standard deviation ${spread}`,
    );
  }
  return `${lines.join("\n")}\n`;
}

/** `AUROC 0.981 (20 positive, 20 negative texts); 100 random directions: mean 0.71, best 0.94` */
export function discriminationLine(figures: Discrimination): string {
  const { auroc, positives, negatives, randomAuroc } = figures;
  const line = `AUROC ${auroc.toFixed(3)} (${positives} positive, ${negatives} negative texts)`;
  if (randomAuroc.length === 0) return line;
  const mean = randomAuroc.reduce((sum, value) => sum + value, 0) / randomAuroc.length;
  const best = randomAuroc.at(-1) ?? 0;
  return `${line}; ${randomAuroc.length} random directions: mean ${mean.toFixed(3)}, best ${best.toFixed(3)}`;
}
