"""The findings of a search: the best trial, a table of its settings with the importance of each, and a picture.

Only ``draw`` needs matplotlib, which is imported when the picture is drawn.
"""

import io
import math
import warnings

from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from study import tuning
from study.summary import table
from study.tuning import Search

FEWEST = 8  # finished trials from which importances are computed
BEST_SHARE = 0.25  # of the trials, whose settings are compared with those of all
COLUMNS = 5  # of the picture


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials with a score, in the order in which they began."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def score(trial: FrozenTrial) -> float:
    """Return the score of a finished trial."""
    assert trial.value is not None
    return trial.value


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the finished trial with the highest score; None if there is none."""
    return max(finished(study), key=score, default=None)


def preset_trial(study: Study) -> FrozenTrial | None:
    """Return the finished trial of the preset that the search started from; None if there is none."""
    return next((trial for trial in finished(study) if "preset" in trial.user_attrs), None)


def metrics(trial: FrozenTrial) -> str:
    """Write a trial's metrics on the validation set."""
    return ", ".join(f"{name.upper()} {value:.4f}" for name, value in trial.user_attrs["validation"].items())


def described(study: Study, trial: FrozenTrial) -> str:
    """Write a trial's number and metrics, compared with those of the preset."""
    found, preset = f"trial {trial.number}, validation {metrics(trial)}", preset_trial(study)
    if "preset" in trial.user_attrs:
        return f"{found}, the preset"
    if preset is None:
        return found
    percent = 100 * math.expm1(score(trial) - score(preset))
    compared = "better" if percent >= 0 else "worse"
    return f"{found}, {abs(percent):.1f} % {compared} than the preset's {metrics(preset)}"


def importances(study: Study) -> dict[str, float]:
    """Return the share of each setting in the difference of the best trials from the others; {} for few trials.

    PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) computes it from the trials that were not pruned.
    """
    if len(finished(study)) < FEWEST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    return get_param_importances(study, evaluator=evaluator)


def report(study: Study, search: Search, best: FrozenTrial) -> str:
    """Write the best trial, and its settings beside those of the preset with the importance of each."""
    start, found, shares = search.settings({}), search.settings(best.user_attrs["changes"]), importances(study)
    names = sorted(search.space, key=lambda name: -shares.get(name, 0.0))
    rows = [
        [name, f"{getattr(start, name):g}", f"{getattr(found, name):g}", f"{shares[name]:.0%}" if shares else "–"]
        for name in names
    ]
    ended = tuning.ended(study)
    pruned = len(ended) - len(finished(study))
    lines = [
        table(["setting", "preset", "best", "importance"], rows),
        "",
        f"best of {len(ended)} trials, {pruned} of them pruned: {described(study, best)}",
    ]
    return "\n".join(lines)


def draw(study: Study, search: Search, best: FrozenTrial) -> bytes:
    """Draw the scores of the finished trials against each setting, and in the order of the trials; return a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    shares = importances(study)
    names = ["", *sorted(search.space, key=lambda name: -shares.get(name, 0.0))]
    rows = math.ceil(len(names) / COLUMNS)
    picture = Figure(figsize=(2.8 * COLUMNS, 2.6 * rows), layout="constrained")
    panels = picture.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    trials, marked = finished(study), {"best": best, "preset": preset_trial(study)}
    for panel, name in zip(panels.flat, names, strict=False):
        panel.scatter(
            [_place(trial, name) for trial in trials], list(map(score, trials)), s=14, color="0.6", clip_on=False
        )
        for label, colour, marker in (("preset", "#0072B2", "s"), ("best", "#D55E00", "*")):
            trial = marked[label]
            if trial is not None:
                panel.scatter(
                    [_place(trial, name)], [score(trial)], s=60, color=colour, marker=marker, label=label, clip_on=False
                )
        if name:
            range = search.space[name]
            panel.set_xscale("log" if range.log else "linear")
            panel.set_xlim(range.low, range.high)
            panel.xaxis.set_minor_formatter("")
        share = f" ({shares[name]:.0%})" if name in shares else ""
        panel.set_title(f"{name or 'trial'}{share}", loc="left", fontsize=11)
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    picture.supylabel("log(MRR / MSE), validation set" if search.rates else "log(MRR), validation set", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    payload = io.BytesIO()
    picture.savefig(payload, format="png", dpi=110)
    return payload.getvalue()


def _place(trial: FrozenTrial, name: str) -> float:
    """Return the value of a setting of a trial, or the number of the trial for an empty name."""
    value: float = trial.params[name] if name else trial.number
    return value
