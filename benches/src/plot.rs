//! What a packet costs over the number of entries, as SVG: the floods, both axes logarithmic.

use std::fmt::Write as _;

use crate::report::Row;

/// The cases, one panel each, two in a line.
const PANELS: [(&str, &str); 4] = [
    ("flood_drop_random", "dropped, random sources"),
    ("flood_drop_hot", "dropped, one source"),
    ("flood_pass_random", "passed, random sources"),
    ("flood_pass_hot", "passed, one source"),
];

/// Contenders with a list, and their colours.
const LINES: [(&str, &str); 5] = [
    ("edgefilter", "#c1121f"),
    ("xdp-filter", "#2a9d8f"),
    ("lpm-trie", "#6a4c93"),
    ("ipset", "#e09f3e"),
    ("nftables", "#1d70b8"),
];

/// Contenders without one.
const LEVELS: [&str; 3] = ["xdp-drop", "xdp-pass", "nothing"];
const LEVEL_COLOUR: &str = "#777";

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 800.0;
const TOP: f64 = 70.0;
const PANEL_WIDTH: f64 = 410.0;
const PANEL_HEIGHT: f64 = 285.0;
const LEFT: f64 = 70.0;
const STEP_X: f64 = 480.0;
const STEP_Y: f64 = 365.0;

/// Entries at the ends of the horizontal axis.
const ENTRIES: (f64, f64) = (1e3, 1e6);

/// The picture; `None` if there is nothing to show.
pub(crate) fn svg(rows: &[Row]) -> Option<String> {
    let costs: Vec<_> = rows.iter().filter_map(nanoseconds).collect();
    let least = costs.iter().copied().reduce(f64::min)?;
    let most = costs.iter().copied().reduce(f64::max)?;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">Nanoseconds per packet through veth, sender \
         included, over the number of entries</text>\n"
    );
    legend(&mut text);
    let scale = (nice_below(least), nice_above(most));
    for (index, (case, title)) in PANELS.into_iter().enumerate() {
        let panel = Panel {
            x: LEFT + STEP_X * (index % 2) as f64,
            y: TOP + 20.0 + STEP_Y * (index / 2) as f64,
            scale,
        };
        panel.axes(&mut text, title);
        let rows: Vec<_> = rows.iter().filter(|row| row.case == case).collect();
        panel.draw(&mut text, &rows);
    }
    text.push_str("</svg>\n");
    Some(text)
}

/// What a packet of a flood took.
fn nanoseconds(row: &Row) -> Option<f64> {
    let mpps = row.mpps.filter(|mpps| *mpps > 0.0)?;
    Some(1e3 / mpps)
}

/// The place of a case; its scale goes from and to these nanoseconds.
struct Panel {
    x: f64,
    y: f64,
    scale: (f64, f64),
}

impl Panel {
    fn at_entries(&self, entries: f64) -> f64 {
        self.x + PANEL_WIDTH * share(entries, ENTRIES)
    }

    fn at_cost(&self, cost: f64) -> f64 {
        self.y + PANEL_HEIGHT * (1.0 - share(cost, self.scale))
    }

    fn axes(&self, text: &mut String, title: &str) {
        let (x, y) = (self.x, self.y);
        line(
            text,
            format_args!(
                "<text x=\"{x}\" y=\"{:.1}\" font-size=\"14\">{title}</text>",
                y - 8.0
            ),
        );
        line(
            text,
            format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{PANEL_WIDTH}\" height=\"{PANEL_HEIGHT}\" fill=\"none\" \
                 stroke=\"#999\"/>"
            ),
        );
        for cost in ticks(self.scale) {
            let at = self.at_cost(cost);
            let (right, label) = (x + PANEL_WIDTH, x - 6.0);
            line(
                text,
                format_args!(
                    "<line x1=\"{x}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                     <text x=\"{label}\" y=\"{:.1}\" text-anchor=\"end\">{cost}</text>",
                    at + 4.0
                ),
            );
        }
        for (entries, label) in [(1e3, "1k"), (1e4, "10k"), (1e5, "100k"), (1e6, "1M")] {
            let (at, below) = (self.at_entries(entries), y + PANEL_HEIGHT + 16.0);
            line(
                text,
                format_args!(
                    "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>"
                ),
            );
        }
    }

    fn draw(&self, text: &mut String, rows: &[&Row]) {
        for (index, level) in LEVELS.into_iter().enumerate() {
            let of_level = rows.iter().find(|row| row.contender == level);
            let Some(cost) = of_level.and_then(|row| nanoseconds(row)) else {
                continue;
            };
            let (at, right) = (self.at_cost(cost), self.x + PANEL_WIDTH);
            line(
                text,
                format_args!(
                    "<line x1=\"{}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"{LEVEL_COLOUR}\" \
                     stroke-dasharray=\"6 4\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" \
                     fill=\"{LEVEL_COLOUR}\">{level}</text>",
                    self.x,
                    // Beside each other, since the levels of two may be the same.
                    right - 4.0 - 60.0 * index as f64,
                    at - 4.0
                ),
            );
        }
        for (contender, colour) in LINES {
            let points: Vec<_> = rows
                .iter()
                .filter(|row| row.contender == contender)
                .filter_map(|row| {
                    let cost = self.at_cost(nanoseconds(row)?);
                    Some((self.at_entries(row.entries as f64), cost))
                })
                .collect();
            let path: Vec<_> = points
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            line(
                text,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    path.join(" ")
                ),
            );
            for (x, y) in points {
                line(
                    text,
                    format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
                    ),
                );
            }
        }
    }
}

fn legend(text: &mut String) {
    for (index, (contender, colour)) in LINES.into_iter().enumerate() {
        let x = LEFT + 120.0 * index as f64;
        line(
            text,
            format_args!(
                "<line x1=\"{x}\" y1=\"44\" x2=\"{}\" y2=\"44\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <text x=\"{}\" y=\"48\">{contender}</text>",
                x + 22.0,
                x + 28.0
            ),
        );
    }
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "{what}");
}

/// Where a figure lies between two others, logarithmically.
fn share(figure: f64, (from, to): (f64, f64)) -> f64 {
    (figure / from).ln() / (to / from).ln()
}

/// 1, 2 and 5 of every power of ten, over all that a packet may cost.
fn nice() -> impl DoubleEndedIterator<Item = f64> {
    (0..9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

fn nice_below(figure: f64) -> f64 {
    nice().rev().find(|nice| *nice < figure).unwrap_or(0.5)
}

fn nice_above(figure: f64) -> f64 {
    nice().find(|nice| *nice > figure).unwrap_or(1e9)
}

fn ticks((from, to): (f64, f64)) -> impl Iterator<Item = f64> {
    nice().filter(move |nice| (from..=to).contains(nice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Unit;

    #[test]
    fn a_contender_with_three_sizes_is_a_line_of_three_points() {
        let row = |contender, entries, mpps| {
            Row::new("flood_drop_random", contender, entries, Unit::Mpps, &[mpps])
        };
        let rows = [
            row("edgefilter", 1_000, 5.0),
            row("edgefilter", 100_000, 4.0),
            row("edgefilter", 1_000_000, 2.5),
            row("xdp-drop", 0, 6.0),
        ];
        let picture = svg(&rows).unwrap();
        assert_eq!(picture.matches("<circle").count(), 3);
        assert_eq!(picture.matches(">xdp-drop</text>").count(), 1);
        // 2.5 Mpps are 400 ns, and a thousand entries stand at the left edge.
        let panel = Panel {
            x: LEFT,
            y: 0.0,
            scale: (100.0, 400.0),
        };
        assert_eq!(panel.at_cost(400.0), 0.0);
        assert_eq!(panel.at_entries(1_000.0), LEFT);
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn without_floods_there_is_no_picture() {
        assert!(svg(&[]).is_none());
        let other = Row::new("check", "edgefilter", 3, Unit::Seconds, &[1.0]);
        assert!(svg(&[other]).is_none());
    }
}
