//! Curves of runs: losses and random-feature Fréchet distance against images read.

use anyhow::anyhow;
use dcgan_data::ImageShape;
use dcgan_data::image_grid::ImageGrid;
use dcgan_train::compare::{Losses, RunSummary};
use epaint_default_fonts::HACK_REGULAR;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::ops::Range;

const WIDTH: u32 = 1000;
/// Height of one chart.
const HEIGHT: u32 = 320;
const FONT: &str = "sans-serif";

/// Colors that stay different for color-blind readers (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A chart: title, the curve of each run, and whether its y axis is logarithmic.
type Chart<'a> = (&'a str, Vec<Vec<(f64, f64)>>, bool);

/// Draws the curves of all runs.
pub(crate) fn draw(runs: &[RunSummary]) -> anyhow::Result<ImageGrid> {
    // System fonts differ, and many servers have none.
    register_font(FONT, FontStyle::Normal, HACK_REGULAR)
        .map_err(|_| anyhow!("the built-in font cannot be read"))?;
    let losses = |value: fn(&Losses) -> Option<f64>| {
        let curve = |run: &RunSummary| {
            run.losses.iter().filter_map(|line| Some((line.images as f64, value(line)?))).collect()
        };
        runs.iter().map(curve).collect()
    };
    let distances = |run: &RunSummary| run.distances.iter().map(|&(x, y)| (x as f64, y)).collect();
    let charts: [Chart<'_>; 3] = [
        ("random-feature Fréchet distance (logarithmic)", runs.iter().map(distances).collect(), true),
        ("loss of D", losses(|line| line.d), false),
        ("loss of G", losses(|line| line.g), false),
    ];
    let names: Vec<String> = runs.iter().map(|run| run.run.display().to_string()).collect();
    let height = HEIGHT * 3;
    let mut pixels = vec![0; (WIDTH * height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, chart) in root.split_evenly((3, 1)).iter().zip(&charts) {
            draw_chart(area, chart, &names).map_err(|error| anyhow!("cannot draw the curves: {error}"))?;
        }
        root.present()?;
    }
    let shape = ImageShape { height: height as usize, width: WIDTH as usize, channels: 3 };
    Ok(ImageGrid::split_batch(&pixels, shape)?.remove(0))
}

fn draw_chart(
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
    (title, curves, is_log): &Chart<'_>,
    names: &[String],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let scale = |y: f64| if *is_log { y.max(1e-12).log10() } else { y };
    let points = || curves.iter().flatten().filter(|(_, y)| y.is_finite());
    let x = 0.0..points().fold(1.0, |most: f64, &(x, _)| most.max(x));
    let y = padded(points().map(|&(_, y)| scale(y)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d(x, y)?;
    let label = |y: &f64| if *is_log { significant(10_f64.powf(*y)) } else { format!("{y:.2}") };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style((FONT, 12))
        .x_desc("images read")
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&label)
        .draw()?;
    for (i, (curve, name)) in curves.iter().zip(names).enumerate() {
        let color = COLORS[i % COLORS.len()];
        let curve = curve.iter().filter(|(_, y)| y.is_finite()).map(|&(x, y)| (x, scale(y)));
        // A single point is no line.
        chart.draw_series(curve.clone().map(|point| Circle::new(point, 2, color.filled())))?;
        chart
            .draw_series(LineSeries::new(curve, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font((FONT, 12))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The range of values with some room; of none, or of one value, a range around it.
fn padded(values: impl Iterator<Item = f64>) -> Range<f64> {
    let bounds = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), bounds);
    if low > high {
        return 0.0..1.0;
    }
    let room = ((high - low) * 0.05).max(1e-3);
    low - room..high + room
}

/// Three significant digits: `0.0123`, `1.23` or `123`.
fn significant(value: f64) -> String {
    let digits = (2.0 - value.log10().floor()).clamp(0.0, 9.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 9")]
    let digits = digits as usize;
    format!("{value:.digits$}")
}

/// `12k` or `1.5M`.
fn thousands(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", (value / 1e4).round() / 100.0),
        value if value >= 1e3 => format!("{}k", (value / 10.0).round() / 100.0),
        value => format!("{value}"),
    }
}
