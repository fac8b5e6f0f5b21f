//! Small plots as SVG: lines over a number, and bars. For the pages in `docs/`, from the benchmarks and the soak.
#![allow(dead_code, missing_docs)]

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 6] = ["#0b6e4f", "#c8553d", "#3a5a98", "#d9a404", "#7a4988", "#555555"];

/// A named line of points.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines in one pair of axes, from zero up.
pub struct Lines<'a> {
    pub title: &'a str,
    pub below: &'a str,
    /// Whether the horizontal axis shows powers of ten.
    pub powers: bool,
    /// A dashed line at this height, and its name.
    pub mark: Option<(f64, &'a str)>,
    pub lines: Vec<Line>,
}

/// A page of plots, one below the other.
pub fn page(plots: &[Lines<'_>], height: f64) -> String {
    let mut svg = open(height * plots.len() as f64);
    for (at, plot) in plots.iter().enumerate() {
        draw(&mut svg, plot, height * at as f64, height);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, plot: &Lines<'_>, above: f64, height: f64) {
    let all = || plot.lines.iter().flat_map(|line| &line.points);
    let place = |x: f64| if plot.powers { x.max(1.0).log10() } else { x };
    let (first, last) = all().fold((f64::MAX, f64::MIN), |(a, b), (x, _)| (a.min(place(*x)), b.max(place(*x))));
    let highest = all().map(|(_, y)| *y).chain(plot.mark.map(|mark| mark.0)).fold(0.0, f64::max) * 1.05;
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let (low, high) = (above + height - BOTTOM, above + TOP);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (place(value) - first) / (last - first).max(1e-9);
    let y = |value: f64| low - (low - high) * value / highest;
    text(svg, LEFT, above + 20.0, "start", plot.title, "#000");
    text(svg, (LEFT + WIDTH - RIGHT) / 2.0, above + height - 8.0, "middle", plot.below, "#444");
    let step = round_step(highest / 4.0);
    for value in (0..).map(|n| f64::from(n) * step).take_while(|value| *value <= highest) {
        rule(svg, (LEFT, y(value)), (WIDTH - RIGHT, y(value)), "#ddd", "");
        text(svg, LEFT - 6.0, y(value) + 4.0, "end", &short(value), "#444");
    }
    let step = round_step((last - first).max(1e-3) / 5.0);
    let ticks: Vec<f64> = match plot.powers {
        true => (first.floor() as i32..=last.ceil() as i32).map(|power| 10_f64.powi(power)).collect(),
        false => (0..6).map(|n| ((first / step).ceil() + f64::from(n)) * step).collect(),
    };
    for value in ticks.into_iter().filter(|value| place(*value) >= first - 1e-9 && place(*value) <= last + 1e-9) {
        text(svg, x(value), low + 16.0, "middle", &short(value), "#444");
    }
    if let Some((value, name)) = plot.mark {
        rule(svg, (LEFT, y(value)), (WIDTH - RIGHT, y(value)), "#000", "5 4");
        text(svg, WIDTH - RIGHT + 6.0, y(value) + 4.0, "start", name, "#000");
    }
    for (at, line) in plot.lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: String = line.points.iter().map(|point| format!("{:.1},{:.1} ", x(point.0), y(point.1))).collect();
        let _ =
            writeln!(svg, "<polyline fill='none' stroke='{colour}' stroke-width='1.8' points='{}'/>", points.trim());
        if line.points.len() < 20 {
            for point in &line.points {
                let _ = writeln!(svg, "<circle cx='{:.1}' cy='{:.1}' r='3' fill='{colour}'/>", x(point.0), y(point.1));
            }
        }
        text(svg, WIDTH - RIGHT + 6.0, high + 22.0 + 17.0 * at as f64, "start", &line.name, colour);
    }
}

/// A bar for each name, with its figure, on a scale from zero; a dashed line at `mark`.
pub fn bars(title: &str, mark: (f64, &str), bars: &[(String, Vec<(String, f64)>)]) -> String {
    let count: usize = bars.iter().map(|(_, all)| all.len()).sum();
    let height = TOP + 17.0 * count as f64 + 10.0 * bars.len() as f64 + 30.0;
    let mut svg = open(height);
    text(&mut svg, 10.0, 20.0, "start", title, "#000");
    let figures = bars.iter().flat_map(|(_, all)| all).map(|(_, value)| *value);
    let highest = figures.fold(mark.0, f64::max);
    let begin = 170.0;
    let length = |value: f64| (WIDTH - begin - RIGHT) * value / highest;
    let mut at = TOP;
    for (name, all) in bars {
        text(&mut svg, begin - 8.0, at + 13.0, "end", name, "#000");
        for (number, (label, value)) in all.iter().enumerate() {
            let (long, colour) = (length(*value), COLOURS[number % COLOURS.len()]);
            let _ = writeln!(svg, "<rect x='{begin}' y='{at:.1}' width='{long:.1}' height='14' fill='{colour}'/>");
            text(&mut svg, begin + long + 5.0, at + 12.0, "start", &format!("{value:.2} {label}"), colour);
            at += 17.0;
        }
        at += 10.0;
    }
    let x = begin + length(mark.0);
    rule(&mut svg, (x, TOP - 4.0), (x, at), "#000", "5 4");
    text(&mut svg, x, at + 14.0, "middle", mark.1, "#000");
    svg + "</svg>\n"
}

fn open(height: f64) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' \
         font-size='12'>\n<rect width='{WIDTH}' height='{height}' fill='#fff'/>\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str, colour: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' fill='{colour}'>{words}</text>");
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
    let ((a, b), (c, d)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1='{a:.1}' y1='{b:.1}' x2='{c:.1}' y2='{d:.1}' stroke='{colour}' stroke-dasharray='{dashes}'/>"
    );
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= value * 0.999).unwrap_or(power)
}

fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{}M", value / 1e6),
        _ if value >= 1e4 => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}
