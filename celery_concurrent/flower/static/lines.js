// From columns of figures to the paths of a drawing. Pure.

/** Runs of samples without a hole: of time, or where `isLeftOut(i)`. */
function runs({ at, gap }, isLeftOut = () => false) {
  const found = [];
  let run = [];
  at.forEach((time, i) => {
    const isBroken = run.length && time - at[run[run.length - 1]] > gap;
    if (isBroken || isLeftOut(i)) {
      if (run.length) found.push(run);
      run = [];
    }
    if (!isLeftOut(i)) run.push(i);
  });
  if (run.length) found.push(run);
  return found;
}

const at = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** Corners of a line through the values of a run: each holds until the next one. */
function corners({ at: times, x, y }, values, run) {
  const found = [];
  run.forEach((i, place) => {
    const here = x(times[i]);
    if (place) found.push(at(here, y(values[run[place - 1]])));
    found.push(at(here, y(values[i])));
  });
  return found;
}

/** The area between two lines of values; where they are one, nothing. */
export function areaPath(points, lower, upper, isLeftOut = () => false) {
  const isFlat = (i) => !(upper[i] > lower[i]);
  const isEmpty = (i) => isFlat(i) && isFlat(i - 1);
  return runs(points, (i) => isLeftOut(i) || isEmpty(i))
    .map((run) => {
      const there = corners(points, upper, run);
      const back = corners(points, lower, run).reverse();
      return `M${there.join("L")}L${back.join("L")}Z`;
    })
    .join("");
}

/** A line through the values. */
export function linePath(points, values) {
  return runs(points)
    .map((run) => `M${corners(points, values, run).join("L")}`)
    .join("");
}

/** Boxes where `isGap(i)`, over the full height. */
export function gapPath({ at: times, x, gap }, isGap, top, height) {
  return runs({ at: times, gap }, (i) => !isGap(i))
    .map((run) => {
      const first = run[0] ? times[run[0] - 1] : times[run[0]];
      const last = run[run.length - 1];
      const until = times[Math.min(last + 1, times.length - 1)];
      return `M${at(x(first), top)}H${x(until).toFixed(1)}V${top + height}H${x(first).toFixed(1)}Z`;
    })
    .join("");
}

/** Round figures from 0 to `highest` or above, about `wanted` steps; whole ones. */
export function ticks(highest, wanted) {
  const rough = Math.max(1, highest / wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 3, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const last = Math.ceil(highest / step);
  return Array.from({ length: last + 1 }, (_, i) => i * step);
}

const STEPS = [60, 120, 300, 600, 900, 1800];

/** Round times of day between two, `most` of them at the most. */
export function timeTicks(from, to, most) {
  const step = STEPS.find((each) => (to - from) / each <= most) ?? 3600;
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) found.push(time);
  return found;
}
