"""The text format of Prometheus."""

import re

from daemon.metrics import Metrics

LINE = re.compile(r'^(# (HELP|TYPE) \S+ .+|[a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)+\})? -?[0-9.e+-]+)$')


def test_every_line_is_of_the_format() -> None:
    metrics = Metrics()
    metrics.images.add("written")
    metrics.images.add("written")
    metrics.errors.add("text", 'a "quoted"\nname\\')
    metrics.batch.observe(3, "objects")
    metrics.stage.observe(0.02, "decode")
    metrics.reading("enrichd_lag_seconds", "Lag.", lambda: 2.5)
    text = metrics.text()
    assert all(LINE.match(line) for line in text.splitlines()), text
    assert 'enrichd_images_total{written="written"} 2' in text
    assert "enrichd_lag_seconds 2.5" in text


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    metrics = Metrics()
    for size in (1, 2, 2, 3, 100):
        metrics.batch.observe(size, "u")
    lines = dict(line.rsplit(" ", 1) for line in metrics.text().splitlines() if line.startswith("enrichd_batch"))
    assert lines['enrichd_batch_images_bucket{unit="u",le="1"}'] == "1"
    assert lines['enrichd_batch_images_bucket{unit="u",le="2"}'] == "3"
    assert lines['enrichd_batch_images_bucket{unit="u",le="64"}'] == "4"
    assert lines['enrichd_batch_images_bucket{unit="u",le="+Inf"}'] == "5"
    assert lines['enrichd_batch_images_count{unit="u"}'] == "5" and lines['enrichd_batch_images_sum{unit="u"}'] == "108"
