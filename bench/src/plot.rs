//! The chart of the results: each server's rate relative to its bare framework, one bar per case.

use std::path::Path;

use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{PathElement, Rectangle, Text},
    style::{
        BLACK, Color, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};
use todo_bench::Failure;

use crate::{
    cases::{Case, ServerKind, Target},
    measure::Results,
};

/// Connections of the chart, as for the targets; else the smallest measured number.
const CONNECTIONS: u32 = 16;
/// Okabe and Ito's palette, distinguishable by the colour-blind.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(86, 180, 233), RGBColor(213, 94, 0), RGBColor(230, 159, 0)];
const GRID: RGBColor = RGBColor(208, 208, 208);

/// Layout in pixels: start of the bars, length of a bar of 100 %, and heights of rows.
const LEFT: i32 = 170;
const WHOLE: f64 = 560.0;
const TOP: i32 = 90;
const BAR: i32 = 15;
const GROUP: i32 = 4 * BAR + 14;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the chart, if any server was measured.
pub(crate) fn draw(results: &Results, path: &Path) -> Result<(), Failure> {
    let all = || results.samples.keys().map(|(_, connections, _)| *connections);
    let chosen =
        if all().any(|number| number == CONNECTIONS) { Some(CONNECTIONS) } else { all().min() };
    let Some(connections) = chosen else { return Ok(()) };
    let share = |case, kind: ServerKind| {
        let [of, to] =
            [Target::Server(kind), kind.bare()].map(|target| (case, connections, target));
        results.ratio(of, to)
    };
    // A login takes as long as its hash: its share of the bare framework is close to zero.
    let has_bar = |case: &Case| {
        *case != Case::Login && ServerKind::ALL.iter().any(|kind| share(*case, *kind).is_some())
    };
    let cases: Vec<Case> = Case::ALL.into_iter().filter(has_bar).collect();
    let bottom = TOP + GROUP * i32::try_from(cases.len())?;

    let size = (820, u32::try_from(bottom)? + 16);
    let svg = SVGBackend::new(path, size).into_drawing_area();
    svg.fill(&WHITE)?;
    let title =
        format!("Requests a second, of bare hyper or salvo = 100 %, {connections} connections");
    write(&svg, &title, (16, 20), 17, HPos::Left)?;
    for (at, (kind, colour)) in (0..).zip(ServerKind::ALL.into_iter().zip(COLOURS)) {
        let x = 16 + at * 200;
        let y = 46;
        svg.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], colour.filled()))?;
        write(&svg, &kind.to_string(), (x + 18, y), 12, HPos::Left)?;
    }
    for percent in [0, 25, 50, 75, 100] {
        let x = LEFT + length(f64::from(percent) / 100.0);
        svg.draw(&PathElement::new([(x, TOP - 8), (x, bottom)], GRID))?;
        write(&svg, &format!("{percent} %"), (x, TOP - 16), 12, HPos::Center)?;
    }
    for (row, case) in (0..).zip(cases) {
        let top = TOP + row * GROUP;
        write(&svg, case.name(), (LEFT - 10, top + 2 * BAR), 13, HPos::Right)?;
        for (at, (kind, colour)) in (0..).zip(ServerKind::ALL.into_iter().zip(COLOURS)) {
            let Some(share) = share(case, kind) else { continue };
            let y = top + at * BAR;
            let end = LEFT + length(share);
            svg.draw(&Rectangle::new([(LEFT, y + 1), (end, y + BAR - 1)], colour.filled()))?;
            let label = format!("{:.0} %", share * 100.0);
            write(&svg, &label, (end + 5, y + BAR / 2), 11, HPos::Left)?;
        }
    }
    Ok(svg.present()?)
}

/// The length of a bar, cut off just beyond 100 %.
#[expect(clippy::cast_possible_truncation, reason = "pixels")]
fn length(share: f64) -> i32 {
    (share.clamp(0.0, 1.06) * WHOLE).round() as i32
}

fn write(
    svg: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    align: HPos,
) -> Result<(), Failure> {
    let style =
        TextStyle::from(("sans-serif", size)).color(&BLACK).pos(Pos::new(align, VPos::Center));
    Ok(svg.draw(&Text::new(text.to_owned(), at, style))?)
}
