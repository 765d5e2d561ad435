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
# A softmax head for the headless model, from its calibrated head and from its embeddings.
for origin in calibrated embedding; do
    grep -q '"finished": true' "$runs/headless-lm-head-$origin/summary.json" 2>/dev/null ||
        $headless finetune --task lm-head --model "$runs/headless" --start "$origin" \
            --run.resume true
done
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
