from recsys.ops.guard import verdict_in_service


def hours(champion, control, number=10):
    """`number` hours of (answers, clicks) of each arm."""
    return [
        {"hour_us": hour, "arm": arm, "shown": shown, "clicks": clicks}
        for hour in range(number)
        for arm, (shown, clicks) in (("champion", champion), ("control", control))
    ]


def test_a_champion_that_people_click_on_less_goes_and_says_why():
    reason = verdict_in_service(hours((2_000, 60), (200, 20)), 0, 1_000, 0.2)
    assert "click-through minus the control arm's is -0.0700" in reason
    assert "20,000 and 2,000 answers" in reason


def test_chance_too_few_answers_and_better_figures_let_it_stay():
    assert verdict_in_service(hours((2_000, 195), (200, 20)), 0, 1_000, 0.2) is None
    assert verdict_in_service(hours((2_000, 60), (99, 10)), 0, 1_000, 0.2) is None
    assert verdict_in_service(hours((2_000, 300), (200, 20)), 0, 1_000, 0.2) is None
    assert verdict_in_service([], 0, 1_000, 0.2) is None


def test_too_many_empty_answers_are_enough():
    assert "25.0% of 20,000 answers" in verdict_in_service(
        hours((2_000, 200), (0, 0)), 5_000, 1_000, 0.2
    )
    assert verdict_in_service(hours((2_000, 200), (0, 0)), 4_000, 1_000, 0.2) is None
