"""Tokens banned and biased by key, the end, the order of stages, presets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from textual.widgets import Static

from chatapp.chat.sampling import LLAMA_CPP_ORDER, TRANSFORMERS_ORDER, SamplingParams
from chatapp.chat.template import Template
from chatapp.settings.library import load_templates, save_template
from chatapp.settings.paths import Paths
from chatapp.settings.presets import Presets, with_preset
from chatapp.ui.dialogs.order import OrderScreen
from chatapp.ui.dialogs.settings import SettingsScreen
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from tests.ui.host import ask, make_app, notice, ready, say, until
from tests.ui.inspected import OTHER, InspectedEngine
from tests.ui.scripted import token_id

SIZE = (110, 36)


async def test_the_candidate_under_the_row_cursor_is_banned_and_biased() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await ask(pilot, "count")
        chat.panel.candidates.focus()
        other = token_id(OTHER)
        await pilot.press("down", "x")
        assert chat.session.sampling.banned == (other,)
        assert notice(chat) == f"␣other ({other}) is banned; x allows it again"
        title = chat.query_one("#sampling-title", Static)
        assert str(title.content) == "sampling · 1 banned"
        await pilot.press("x", "plus", "plus", "minus")
        assert chat.session.sampling.banned == ()
        assert chat.session.sampling.logit_bias == ((other, 1.0),)
        await pilot.press("minus")
        assert chat.session.sampling.logit_bias == ()
        assert str(title.content) == "sampling"


async def test_tokens_are_banned_and_biased_by_text_and_by_id() -> None:
    app = make_app(InspectedEngine("One two"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        other = token_id(OTHER)
        await say(pilot, f"/ban {other}")
        assert chat.session.sampling.banned == (other,)
        assert "is banned; the same allows it again" in notice(chat)
        await say(pilot, f"/ban {other}")
        assert chat.session.sampling.banned == ()
        await say(pilot, f"/bias {other}=-2.5")
        assert chat.session.sampling.logit_bias == ((other, -2.5),)
        assert notice(chat) == f"␣other ({other}) has a bias of −2.50"
        await say(pilot, f"/bias {other}=0")
        assert chat.session.sampling.logit_bias == ()
        await say(pilot, '/bias " other" = 1.5')
        assert chat.session.sampling.logit_bias == ((other, 1.5),)
        await say(pilot, '/bias " other"=0')
        await say(pilot, f"/bias {other}=-inf")
        assert notice(chat) == f"a bias of −∞ is a ban: /ban {other}"
        await say(pilot, '/ban ""')
        assert "not by nothing" in notice(chat)
        await say(pilot, "/ban two words")
        assert "is 2 tokens of this model" in notice(chat)
        await say(pilot, "/bias other")
        assert "a bias must be TOKEN=NUMBER" in notice(chat)
        assert chat.session.sampling == SamplingParams()


async def test_the_end_is_ruled_and_all_rules_are_cleared() -> None:
    app = make_app(InspectedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/end forbid")
        assert chat.session.sampling.end == "forbid"
        assert "Esc stops it" in notice(chat)
        await say(pilot, "/end never")
        assert "/end takes allow, forbid or force" in notice(chat)
        await say(pilot, "/bias clear")
        assert chat.session.sampling.end == "allow"


async def test_stages_are_moved_and_known_orders_taken() -> None:
    app = make_app(InspectedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen), "settings")
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, OrderScreen), "the order")
        await pilot.press("shift+down", "down", "K")
        assert chat.session.sampling.order == (
            "top_k",
            "top_p",
            "temperature",
            *TRANSFORMERS_ORDER[3:],
        )
        rows = str(app.screen.query_one("#order-rows", Static).content)
        assert "› 2. top-p" in rows and "this is your own order" in rows
        await pilot.press("2")
        assert chat.session.sampling.order == LLAMA_CPP_ORDER
        await pilot.press("escape", "escape")
        assert "llama.cpp order" in str(chat.query_one("#sampling-title", Static).content)
        await say(pilot, "/order transformers")
        assert chat.session.sampling.order == TRANSFORMERS_ORDER


async def test_presets_are_kept_and_taken(tmp_path: Path) -> None:
    app = make_app(InspectedEngine(), presets=Presets(tmp_path / "presets"))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/temp 1.2")
        await say(pilot, "/preset save warm")
        assert (tmp_path / "presets" / "warm.toml").read_text() == "temperature = 1.2\n"
        await say(pilot, "/preset greedy")
        assert chat.session.sampling.temperature == 0
        await say(pilot, "/preset warm")
        assert chat.session.sampling.temperature == 1.2
        await say(pilot, "/preset nothing")
        assert "there is no preset 'nothing'" in notice(chat)


async def test_the_present_settings_are_kept_as_a_template(paths: Paths) -> None:
    app = make_app(InspectedEngine(), save_template=partial(save_template, paths))
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        await say(pilot, "/system Speak in verse.")
        await say(pilot, "/temp 1.2")
        await say(pilot, "/order llama.cpp")
        await say(pilot, "/template save poet")
        await until(pilot, lambda: "kept as template poet" in notice(chat), "the template")
        sampling = chat.session.sampling
        saved = load_templates(paths).named("poet")
        assert saved.system == "Speak in verse."
        assert SamplingParams(top_k=7).with_values(saved.sampling) == sampling
        await say(pilot, "/template strict")
        assert chat.session.sampling != sampling
        await say(pilot, "/template poet")
        assert chat.session.sampling == sampling
        assert chat.session.conversation.system == "Speak in verse."
        await say(pilot, "/template save ../poet")
        await until(pilot, lambda: "a template's name is" in notice(chat), "the refusal")


async def test_a_template_whose_preset_is_gone_changes_nothing(tmp_path: Path) -> None:
    presets = Presets(tmp_path)
    app = make_app(
        InspectedEngine(),
        templates={"lost": Template("lost", preset="gone")},
        sampling_for=lambda template: SamplingParams().with_values(
            with_preset(template, presets).sampling
        ),
    )
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        before = chat.session.conversation.id
        await say(pilot, "/template lost")
        await until(pilot, lambda: "there is no preset 'gone'" in notice(chat), "the refusal")
        assert chat.session.conversation.id == before


async def test_a_stage_is_switched_off_and_on_again() -> None:
    app = make_app(InspectedEngine())
    async with app.run_test(size=SIZE) as pilot:
        chat = await ready(pilot)
        panel = chat.query_one("#sampling", SamplingPanel)
        panel.focus()
        await pilot.press("down", "space")
        assert chat.session.sampling.top_k == 0
        await pilot.press("space")
        assert chat.session.sampling.top_k == 50
