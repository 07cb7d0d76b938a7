//! The order of measurements, and their results. In each round all targets run the same case, one
//! right after the other, so that changes on the machine affect all of them.

use std::collections::BTreeMap;

use todo_bench::Failure;

use crate::{
    args::Args,
    browse::ClientMode,
    cases::{Case, ServerKind, Target},
    load::Sample,
    testbed::{Storm, Testbed},
};

/// Results, with one sample per round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) samples: BTreeMap<(Case, u32, Target), Vec<Sample>>,
    pub(crate) storms: BTreeMap<ServerKind, Vec<Storm>>,
    pub(crate) browsed: BTreeMap<(ServerKind, ClientMode), Vec<Sample>>,
}

pub(crate) async fn measure(testbed: &mut Testbed, args: &Args) -> Result<Results, Failure> {
    let mut results = Results::default();
    let kinds = testbed.kinds();
    // Loads the shared data into memory first; otherwise the first target would pay for it.
    for target in Case::List.targets(&kinds) {
        testbed.measure(target, Case::List, 16, 1).await?;
    }
    for round in 1..=args.rounds {
        for &case in &args.cases {
            for &connections in args.connections.iter().filter(|number| case.is_for(**number)) {
                for target in case.targets(&kinds) {
                    let sample = testbed.measure(target, case, connections, args.seconds).await?;
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
                for &kind in &kinds {
                    for mode in ClientMode::ALL.into_iter().filter(|mode| kind.supports(*mode)) {
                        let sample = testbed.browse(kind, mode, args.seconds).await?;
                        results.browsed.entry((kind, mode)).or_default().push(sample);
                    }
                }
            }
            if case == Case::Login {
                for &kind in &kinds {
                    let storm = testbed.storm(kind, args.seconds).await?;
                    results.storms.entry(kind).or_default().push(storm);
                }
            }
        }
    }
    Ok(results)
}

impl Results {
    /// Number of measurements with errors.
    pub(crate) fn failed(&self) -> usize {
        let storms = self.storms.values().flatten();
        let storms = storms.flat_map(|storm| [&storm.alone, &storm.during, &storm.logins]);
        let samples = self.samples.values().chain(self.browsed.values()).flatten();
        samples.chain(storms).filter(|sample| sample.errors > 0).count()
    }

    /// The median of a value of the samples, if all of them have it.
    pub(crate) fn median(
        &self,
        key: (Case, u32, Target),
        of: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        median(self.samples.get(&key)?.iter().map(of).collect::<Option<_>>()?)
    }

    /// The median of the ratios of two targets' rates within a round.
    pub(crate) fn ratio(&self, of: (Case, u32, Target), to: (Case, u32, Target)) -> Option<f64> {
        let rounds = self.samples.get(&of)?.iter().zip(self.samples.get(&to)?);
        median(rounds.map(|(of, to)| of.rate / to.rate).collect())
    }
}

/// The middle value, or the mean of the two middle values.
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
        let [server, bare] = [Target::Server(ServerKind::HyperSqlite), Target::BareHyper]
            .map(|target| (Case::Get, 16, target));
        let mut results = Results::default();
        // The machine is busy in the second round.
        results.samples.insert(bare, [100.0, 10.0, 90.0].map(sample).into());
        results.samples.insert(server, [50.0, 5.0, 54.0].map(sample).into());
        assert_eq!(results.ratio(server, bare), Some(0.5));
        assert_eq!(results.median(server, |sample| Some(sample.rate)), Some(50.0));
        assert_eq!(results.median(server, |sample| sample.p50), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
