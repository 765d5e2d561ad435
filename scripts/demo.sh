#!/bin/sh
# From a corpus in a package to a page that compares two objectives, and two models that anyone can
# load. What is there is reused.
#   scripts/demo.sh [directory of the runs]
set -eu
cd "$(dirname "$0")/.."
runs=${1:-runs/demo}
headless=.venv/bin/headless
start=$(date +%s)

.venv/bin/python scripts/demo_corpus.py data/demo-text
[ -f data/demo/manifest.json ] || $headless prepare --config configs/demo/data.yaml
for objective in vanilla headless; do
    if grep -q '"finished": true' "$runs/$objective/summary.json" 2>/dev/null; then
        echo "reusing $runs/$objective"
    else
        # A run that was stopped goes on from its last checkpoint.
        $headless pretrain --config "configs/demo/$objective.yaml" \
            --run.root "$runs" --run.resume true
    fi
done

.venv/bin/python scripts/demo_evaluation.py data/demo-evaluation
for objective in vanilla headless; do
    [ -d "$runs/exported/$objective" ] ||
        $headless export --checkpoint "$runs/$objective" --output "$runs/exported/$objective"
    if [ ! -f "$runs/$objective/evaluations.jsonl" ]; then
        $headless evaluate --config configs/evaluate/demo.yaml --model "$runs/$objective"
        # The headless model as the paper decodes, too: the input embeddings alone.
        [ $objective = vanilla ] || $headless evaluate --config configs/evaluate/demo.yaml \
            --model "$runs/$objective" --head tied
    fi
done
# A softmax head for the headless model, trained from its embeddings as in the paper.
grep -q '"finished": true' "$runs/headless-lm-head-embedding/summary.json" 2>/dev/null ||
    $headless finetune --task lm-head --model "$runs/headless" --start embedding --run.resume true
# The laboratory: the two at once, since much of it is drawing on one core.
pids=
trap 'kill $pids 2>/dev/null; exit 130' INT TERM
for objective in vanilla headless; do
    [ -f "$runs/$objective/analysis/analysis.html" ] && continue
    echo "looking inside $runs/$objective"
    OMP_NUM_THREADS=1 $headless analyze --model "$runs/$objective" --overwrite true >/dev/null &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid"; done
trap - INT TERM
# The two, and every run of your own beside them.
set -- "$runs/vanilla" "$runs/headless"
for summary in "$runs"/*/summary.json; do
    run=$(dirname "$summary")
    case $run in "$runs/vanilla" | "$runs/headless") ;; *) set -- "$@" "$run" ;; esac
done
$headless compare "$@" --output "$runs/report" --overwrite true
for objective in vanilla headless; do
    echo
    echo "$runs/exported/$objective, a Hugging Face model, continues a prompt:"
    $headless generate --model "$runs/exported/$objective" --max_new_tokens 40 --seed 1 \
        --prompt "HAMLET. To "
done
echo
echo "$(($(date +%s) - start)) seconds"
report=$runs/report/report.html
if [ -t 1 ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null; then
    xdg-open "$report" >/dev/null 2>&1 || true
elif [ -t 1 ] && [ "$(uname -s)" = Darwin ]; then
    open "$report" || true
fi
