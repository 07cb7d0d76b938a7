//! The order of turns, and what came of them. In each round everybody takes their turn at the same
//! work, one right after the other: what changes on the machine meanwhile changes for all.

use std::collections::BTreeMap;

use todo_bench::Failure;

use crate::{
    args::Args,
    browse::Way,
    cases::{Case, Cell, Target},
    load::Sample,
    stage::{Stage, Storm},
};

/// What was found, a sample a round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) samples: BTreeMap<(Case, u32, Target), Vec<Sample>>,
    pub(crate) storms: BTreeMap<Cell, Vec<Storm>>,
    pub(crate) browsed: BTreeMap<(Cell, Way), Vec<Sample>>,
}

pub(crate) async fn measure(stage: &mut Stage, args: &Args) -> Result<Results, Failure> {
    let mut results = Results::default();
    let cells = stage.cells();
    // What everybody reads is in memory before anything counts, or the first would pay for it.
    for target in Case::List.targets(&cells) {
        stage.turn(target, Case::List, 16, 1).await?;
    }
    for round in 1..=args.rounds {
        for &case in &args.cases {
            for &connections in args.connections.iter().filter(|number| case.is_for(**number)) {
                for target in case.targets(&cells) {
                    let sample = stage.turn(target, case, connections, args.seconds).await?;
                    let name = case.name();
                    let Sample { rate, errors, .. } = sample;
                    eprintln!(
                        "round {round}: {name}, {connections} connections, {target}: {rate:.0}/s, \
                         {errors} errors"
                    );
                    results.samples.entry((case, connections, target)).or_default().push(sample);
                }
            }
            if case == Case::List {
                for &cell in &cells {
                    for way in Way::ALL.into_iter().filter(|way| cell.speaks(*way)) {
                        let sample = stage.browse(cell, way, args.seconds).await?;
                        results.browsed.entry((cell, way)).or_default().push(sample);
                    }
                }
            }
            if case == Case::Login {
                for &cell in &cells {
                    let storm = stage.storm(cell, args.seconds).await?;
                    results.storms.entry(cell).or_default().push(storm);
                }
            }
        }
    }
    Ok(results)
}

impl Results {
    /// How many measurements had errors.
    pub(crate) fn failed(&self) -> usize {
        let storms = self.storms.values().flatten();
        let storms = storms.flat_map(|storm| [&storm.alone, &storm.during, &storm.logins]);
        let samples = self.samples.values().chain(self.browsed.values()).flatten();
        samples.chain(storms).filter(|sample| sample.errors > 0).count()
    }

    /// The median of what the samples say of something, if all of them do.
    pub(crate) fn median(
        &self,
        key: (Case, u32, Target),
        of: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        median(self.samples.get(&key)?.iter().map(of).collect::<Option<_>>()?)
    }

    /// The median of what the rate was to another's in the same round.
    pub(crate) fn ratio(&self, of: (Case, u32, Target), to: (Case, u32, Target)) -> Option<f64> {
        let rounds = self.samples.get(&of)?.iter().zip(self.samples.get(&to)?);
        median(rounds.map(|(of, to)| of.rate / to.rate).collect())
    }
}

/// The middle, or the mean of both.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |rate| Sample { rate, p50: None, p99: None, errors: 0, requests: 1 };
        let [cell, bare] =
            [Target::Cell(Cell::HyperSqlite), Target::BareHyper].map(|who| (Case::Get, 16, who));
        let mut results = Results::default();
        // A machine that is busy in the second round.
        results.samples.insert(bare, [100.0, 10.0, 90.0].map(sample).into());
        results.samples.insert(cell, [50.0, 5.0, 54.0].map(sample).into());
        assert_eq!(results.ratio(cell, bare), Some(0.5));
        assert_eq!(results.median(cell, |sample| Some(sample.rate)), Some(50.0));
        assert_eq!(results.median(cell, |sample| sample.p50), None);
    }

    #[test]
    fn of_an_even_number_the_median_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
