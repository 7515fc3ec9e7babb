/** The colours of page and plots: CSS custom properties, so that one SVG serves light and dark. */

/** Light, dark. The series' hues are after Okabe and Ito: they differ under every colour vision. */
const COLORS = {
  paper: ["#ffffff", "#14171a"],
  raised: ["#f6f7f8", "#1d2125"],
  ink: ["#1b1f24", "#e8ebee"],
  muted: ["#5c6670", "#9aa5af"],
  rule: ["#dfe3e7", "#30363c"],
  link: ["#00598c", "#7cc4f2"],
  good: ["#00694e", "#46c89f"],
  bad: ["#b03a00", "#f08b4b"],
  trigger: ["#c04a00", "#f08b4b"],
  plain: ["#0072b2", "#5db8ee"],
  first: ["#00795a", "#35c295"],
  second: ["#a86f00", "#e8ae3c"],
  third: ["#a8487b", "#e08db8"],
  fourth: ["#0072b2", "#5db8ee"],
  random: ["#7c8791", "#8b96a0"],
} as const;

export type Color = keyof typeof COLORS;

/** For a vector: its place among the study's vectors that are no random directions. */
const VECTOR_COLORS: Color[] = ["first", "second", "third", "fourth"];

export function vectorColor(index: number): Color {
  return VECTOR_COLORS[index % VECTOR_COLORS.length] ?? "first";
}

/** As a property in a page that has `colorSheet`. */
export function cssColor(color: Color): string {
  return `var(--${color})`;
}

/** The properties, light and dark. */
export function colorSheet(): string {
  const properties = (index: 0 | 1) =>
    Object.entries(COLORS)
      .map(([name, values]) => `--${name}:${values[index]}`)
      .join(";");
  return `:root{${properties(0)}}@media (prefers-color-scheme:dark){:root{${properties(1)}}}`;
}

/** The same picture for viewers without style sheets: the light colours in place of the properties. */
export function withLightColors(svg: string): string {
  return svg.replace(/var\(--([a-z]+)\)/g, (property, name: string) =>
    name in COLORS ? COLORS[name as Color][0] : property,
  );
}
