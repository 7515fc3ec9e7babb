/** What a report says, section by section. */
import type { StudyRun } from "../records.js";
import type { ReportDocument } from "./document.js";
import type { Figures } from "./figures.js";
import type { Samples } from "./samples.js";
import { answerSection } from "./sections/answer.js";
import { detectionSection, judgesSection, samplesSection } from "./sections/evidence.js";
import { methodsSection } from "./sections/methods.js";
import { sanitySection, steeringSection, stepsSection } from "./sections/steering.js";
import { count } from "./wording.js";

export function documentOf(run: StudyRun, figures: Figures, samples: Samples): ReportDocument {
  const { plan } = run;
  const { server } = plan;
  const adapters = Object.keys(server.adapters);
  return {
    eyebrow: `llama-steer study · ${plan.name}`,
    title: plan.title,
    facts:
      `${server.modelName}${adapters.length > 0 ? ` with the adapter ${adapters.join(", ")}` : ""}, ${count(plan.cells.length, "cell")}, ` +
      `${count(run.answers.length, "answer")}, on ${server.device} (${server.isa}).`,
    blocks: [
      ...answerSection(figures),
      ...steeringSection(figures),
      ...sanitySection(figures),
      ...detectionSection(figures),
      ...stepsSection(figures),
      ...judgesSection(figures),
      ...samplesSection(figures, samples),
      ...methodsSection(run, figures),
    ],
  };
}
