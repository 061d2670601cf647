def _questions(content: Content) -> Iterator[str]:
    pair, classes = pair_of(content), content.classes
    for entry in pair:
        shares = entry.confusion / np.maximum(entry.confusion.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(shares, 0)
        i, j = divmod(int(shares.argmax()), len(classes))
        if shares[i, j] > 0:
            yield (
                f"{plain(entry.title)} takes {_percent(shares[i, j])} of the {plain(classes[i])} tracks for "
                f"{plain(classes[j])}, its largest confusion, and {_percent(shares[j, i])} the other "
                "way round. "
                "What do these tracks share, and would a listener part them?"
            )
    if len(pair) == 2:
        yield from _duel(pair[0], pair[1], classes)
    for entry in content.systems:
        if entry.row.versus and entry.path == "floor" and entry.record.head:
            yield (
                f"{plain(entry.title)}, which knows no order in time, stands at "
                f"{_points(entry.row.versus)} to the "
                f"baseline: {entry.row.versus.words}. What does the network learn beyond means and "
                "deviations?"
            )
    leaks = [(row.leak, plain(row.system.title)) for row in content.sections[0].rows if row.leak]
    if leaks:
        leak, title = max(leaks, key=lambda one: one[0].accuracy_difference)
        yield f"{title} gains {_points(leak)} where the split leaks. How much of that is knowing artists?"
    for entry in _trained(content):
        assert entry.curves is not None
        kept = entry.curves[entry.curves["best"]].mean(numeric_only=True)
        yield (
            f"At the epochs kept {plain(entry.title)} has an accuracy of "
            f"{_percent(kept['train_accuracy'])} in "
            f"training and {_percent(kept['val_accuracy'])} on validation. Would more data help, or "
            "another size?"
        )
    told = [p for p in (content.check or {}).get("properties", ()) if p["p_value"] < 0.05]
    if told:
        most = max(told, key=lambda p: p["told"] - p["chance"])
        yield (
            f"{plain(most['name']).capitalize()} alone names the genre of {_percent(most['told'])} of "
            "the tracks "
            f"(guessing: {_percent(most['chance'])}). How much of each accuracy is sound production, "
            "not music?"
        )
    if any(entry.record.reported for entry in content.systems):
        yield (
            "Others reported other figures for some of these systems, on other tracks or splits "
            "(table.csv). What "
            "would have to be alike before they could be compared?"
        )
    yield "Which hypotheses do the intervals support, which do they contradict, which do they leave open?"


def _duel(network: Entry, probe: Entry, classes: Sequence[str]) -> Iterator[str]:
    v = paired(probe.row.system.predictions, network.row.system.predictions)
    ours, theirs, holds = plain(probe.title), plain(network.title), v.low <= 0 <= v.high
    yield (
        f"{ours} stands at {_points(v)} to {theirs}, p = {v.p_value:.2g} for this pair alone: {v.words}. "
        + ("The interval holds 0. What may be said all the same?" if holds else "")
        + ("" if holds else "The interval does not hold 0. Would it be so with other artists?")
    )
    loss = network.per_class["recall"] - probe.per_class["recall"]  # (C,)
    k = int(loss.argmax())
    found = [_percent(entry.per_class["recall"][k]) for entry in (network, probe)]
    yield (
        f"{theirs} finds {found[0]} of the {plain(classes[k])} tracks, {ours} {found[1]}. Why does it lose?"
        if loss[k] > 0
        else f"In no genre does {theirs} find more tracks than {ours}. Is there a kind of track it does for?"
    )
    cost = [
        f"{plain(e.title)} {e.record.parameters:,} in {sum(e.record.seconds.values()):.0f} s"
        for e in (network, probe)
    ]
    yield (
        f"Trained parameters, and seconds with the making of the input: {', '.join(cost)}; what an "
        "encoder had "
        "learned before is in neither. Is the comparison fair, and to whom?"
    )


def _threats(content: Content) -> Iterator[str]:
    """Each where the records make it true."""
    section, record, scores = content.sections[0], content.first, content.first.judged
    trained = [entry.row.system for entry in content.systems if entry.path != "floor"]
    records = [each for entry in content.systems for each in entry.row.system.records]
    single = sum(len(system.records) == 1 for system in trained)
    encoders = [*dict.fromkeys(s.record.representation for s in trained if _learned(s.record))]
    dirty = sum(str(each.commit).endswith("+") for each in records)
    devices, limit = {each.device for each in records}, record.recipe["data"].get("limit")
    versions = {json.dumps(each.versions, sort_keys=True) for each in records}
    threats = {
        f"This split leaks on purpose ({plain(record.split_authority)}): scores are too high.": record.leaky,
        f"The best of {len(trained)} systems are picked by their accuracy on test tracks, which flatters "
        "them.": len(trained) > 2,
        f"{single} of {len(trained)} systems ran with one seed; intervals do not hold the spread of training "
        "again.": single,
        "No artist is known to have several tracks: where artists are unknown, one may stand on two "
        "sides.": scores.interval_unit == "track",
        f"{scores.n_groups} artists or tracks were drawn for the intervals; below about 30 they are too "
        "narrow.": scores.n_groups < 30,
        "The records cannot tell whether tested tracks were among what "
        f"{_few(encoders)} learned from.": encoders,
        f"{dirty} of {len(records)} runs were made by code with uncommitted changes.": dirty,
        f"The runs were made on {len(devices)} kinds of device.": len(devices) > 1,
        f"The runs were made with {len(versions)} sets of library versions.": len(versions) > 1,
        f"Only {limit} tracks of the data were taken (--limit).": limit,
        f"{len(record.excluded)} tracks were left out, which need not be like the others.": record.excluded,
        f"{section.superseded} older runs of the same recipes are not shown.": section.superseded,
        f"{len(content.sections) - 1} groups of runs on other tracks or splits are not told of here "
        "(table.csv).": len(content.sections) > 1,
        "Copies on two sides of the split were not looked for.": not content.check,
    }
    yield from (threat for threat, so in threats.items() if so)


def _commands(content: Content) -> Iterator[Block]:
    records = {e.record.run_id: e.record for e in (content.baseline, *pair_of(content)) if e}
    yield Text(
        "The bundle (mgc report --bundle) holds all recipes as configs, and all commands. The main ones:"
    )
    lines = [f"mgc {r.path} --config configs/{r.run_id}.toml" for r in records.values() if r.path != "floor"]
    yield Code((*lines, f"mgc compare --data {shlex.quote(plain(content.first.recipe['data']['source']))}"))


def _references(content: Content) -> Iterator[str]:
    versus = [entry.row.versus for entry in content.systems if entry.row.versus]
    used = {
        "Dietterich": versus,
        "Efron & Tibshirani": True,
        "Fawcett": True,
        "Field & Welsh": content.first.judged.interval_unit == "group",
        "Forman & Scholz": len(set(content.predictions.fold)) > 1,
        "Holm": any(v.p_corrected is not None for v in versus),
        "Lachin": any(v.tracks_needed for v in versus),
        "McNemar": versus,
        "Phipson & Smyth": any(len(row.system.records) > 1 for row in content.sections[0].rows),
    }
    yield from (f"{who}. {METHODS[who]}." for who, needed in used.items() if needed)
    cards = {e.record.representation: e.record.representation_card for e in shown_rows(content)}
    for name, card in cards.items():
        if card.get("source"):
            # Where a folder lies on one machine tells nobody else anything.
            source = re.sub(r"(?<![^ ])/(?:[^/,]+/)*([^/,]+)", r"\1", plain(card["source"]))
            yield f"{plain(name)}: {source}."
