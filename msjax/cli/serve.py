"""`msjax serve`: a proxy that revises or samples answers by a rule."""

import asyncio
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.cli.output import OutputFile
from msjax.cli.prices import Prices
from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.data.trajectory import Trajectory
    from msjax.llm.serve.app import Deciding, ServeSettings


_WAITING = 2048
"""Connections that may wait to be accepted."""


@dataclass(frozen=True)
class Serve(Prices):
    """Stand in front of a server that speaks OpenAI's chat protocol, and let a rule decide.

    A client changes its base URL to http://127.0.0.1:8100/v1 and nothing else. Every answer is
    revised, or sampled again, until the rule stops; what comes back is the answer it returns, with
    the account of all calls as usage and what was done in a field msjax. Tools, n > 1 and what
    else cannot be revised is passed on untouched. /metrics and /healthz say how it goes.

    Keys of clients pass through. To ask clients for a key of this proxy put that in the environment
    variable MSJAX_SERVE_KEY, and the upstream server's in OPENAI_API_KEY.

    Example: msjax serve --upstream http://localhost:8000/v1 --rule until_repeated

    Example: msjax serve --upstream http://localhost:8000/v1 --rule card --pilot pilot.jsonl
    """

    resumes = True

    upstream: tuple[str, ...] = ()
    """URL of the server, ending in /v1; of several servers of the same models the one that is
    loaded least is asked, and one that fails is left out."""

    rule: str = "until_repeated"
    """When to stop and what to return; card: what `msjax card` recommends, by --pilot. Rules that
    learn from labels need --pilot (or markovscale a --posterior). off: requests are passed on, to
    whichever server is loaded least."""

    also: tuple[str, ...] = ()
    """More rules that requests may name, in a field msjax: {"rule": NAME}; off passes one on."""

    pilot: Path | None = None
    """Labelled runs, in any form that is read, that were asked in the same way; also watched for
    drift."""

    posterior: Path | None = None
    """Posterior written by `msjax fit --out`, for --rule markovscale."""

    benchmark: str | None = None
    """Which benchmark of --pilot or --posterior to learn from, if there are several."""

    rounds: int = 3
    """Most revisions after the first answer."""

    samples: int | None = None
    """Ask for at most this many independent samples instead of revisions."""

    ahead: int = 1
    """Samples in flight at a time, for one request: more answer sooner and waste more, since those
    that the rule no longer needs are given up."""

    template: str | None = None
    """How a revision is asked for: a template's name or file. The client's own messages are sent
    as they are."""

    scorer: str = "math"
    """How answers are read and told apart: math, number, choice, exact, or module:function."""

    score: str | None = None
    """Score of each answer, for rules that look at scores: confidence or token_logprob (from
    log-probabilities of upstream), or reward (by --reward-server)."""

    reward_server: str | None = None
    """URL of vLLM with a reward model; its key in the environment variable REWARD_API_KEY."""

    reward_model: str | None = None
    """Name of the reward model, as its server calls it."""

    thinking: bool = False
    """The chat template of upstream opens the thought with which a text begins, as that of
    DeepSeek-R1 does; not where thoughts come in a field of their own."""

    judge: str | None = None
    """Ask this model of upstream after every answer whether it is right, for rules that look at
    verdicts; same: the model that gave the answer."""

    baseline: str | None = None
    """What requests are given that are held out, and all after an alarm; default: all --rounds, or
    the vote on all --samples."""

    holdout: float = 0.0
    """Share of requests, drawn at random, that the baseline is given instead: /metrics then shows
    what the rule saves and, with labels sent to /feedback, gains."""

    shadow: bool = False
    """Ask for all answers and give back the baseline's; count what the rule would have done."""

    out: OutputFile | None = None
    """JSON Lines file of what was served, which `msjax card` and `msjax import` read once there are
    labels; it holds what users asked. Without it nothing is written."""

    host: str = "127.0.0.1"
    """Address to listen at; others than this machine's are open to the network."""

    port: int = 8100
    """Port to listen at; 0 takes a free one."""

    concurrency: int = 256
    """Most requests to upstream at a time."""

    timeout: float = 600.0
    """Seconds upstream may take for one answer."""

    max_body_mb: int = 16
    """Most megabytes of a request."""

    def run(self) -> int:
        """Serve until interrupted."""
        from msjax.errors import require_extra

        require_extra("serve", "starlette", "uvicorn", "aiohttp", "prometheus_client")
        import uvicorn

        from msjax.cli.output import keep_compiled
        from msjax.llm.serve.app import make_app

        keep_compiled()
        settings = self.settings()
        app = make_app(settings)
        config = uvicorn.Config(
            app,
            host=self.host,
            port=self.port,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
        )
        if settings.log is not None:
            asyncio.run(_require_log(settings.log))
        try:
            sockets = [config.bind_socket()]
        except SystemExit:  # uvicorn has said why, with a status that means something else here
            raise InputError(
                f"port {self.port} of {self.host} cannot be had; name another with --port or --host"
            ) from None
        sockets[0].listen(_WAITING)  # who reads the address may connect at once
        port = sockets[0].getsockname()[1]
        self._announce(settings, port)
        uvicorn.Server(config).run(sockets=sockets)
        return 0

    def _announce(self, settings: "ServeSettings", port: int) -> None:
        if self.rule == "off":
            print("rule off: requests are passed on")
        else:
            print(f"rule {self.rule}: {settings.rules[0].live.says}")
        if settings.shadow:
            print(f"shadow: all answers are asked for; {settings.baseline.name} decides")
        if settings.holdout:
            print(f"held out: {settings.holdout:.0%} of requests, for {settings.baseline.name}")
        if settings.monitor is not None:
            print(f"watched for drift: {self.pilot}")
        if not settings.loopback and settings.key is None:
            print(
                f"warning: {self.host} is open to the network and no key is asked for; set "
                "MSJAX_SERVE_KEY"
            )
        host = f"[{self.host}]" if ":" in self.host else self.host
        print(f"serving http://{host}:{port}/v1 from {', '.join(self.upstream)}", flush=True)

    def settings(self) -> "ServeSettings":
        """What the options say, with the rules made."""
        from msjax.llm.revise import REVISE
        from msjax.llm.serve.app import ServeSettings
        from msjax.tasks.prompts import find_template
        from msjax.tasks.scorers import find_scorer

        if self.rounds < 0:
            raise InputError(f"--rounds is {self.rounds}; give 0 or more")
        if self.samples is not None and self.samples < 1:
            raise InputError(f"--samples is {self.samples}; ask for at least 1")
        if not 0 <= self.port < 2**16:
            raise InputError(f"--port is {self.port}; give 0 to 65535")
        self.worth_and_price()
        score, waits = self._scoring()
        names = [one for one in dict.fromkeys((self.rule, *self.also)) if one != "off"]
        pilot = self._pilot
        monitor = None
        answered = any(answer is not None for run in pilot for answer in run.answers)
        if answered:
            from msjax.llm.drift import AnswerMonitor

            monitor = AnswerMonitor(pilot)
        return ServeSettings(
            upstreams=self.upstream,
            rules=tuple(self._deciding(name) for name in names),
            baseline=self._deciding(self._baseline),
            budget=self._budget,
            parallel=self.samples is not None,
            template=REVISE if self.template is None else find_template(self.template),
            scorer=find_scorer(self.scorer),
            score=score,
            score_waits=waits,
            logprobs=score is not None and not waits,
            thinking=self.thinking,
            judge=None if self.judge is None else self.judge.removeprefix("same"),
            ahead=self.ahead,
            holdout=self.holdout,
            shadow=self.shadow,
            monitor=monitor,
            log=self.out,
            key=os.environ.get("MSJAX_SERVE_KEY") or None,
            upstream_key=os.environ.get("OPENAI_API_KEY") or None,
            loopback=self.host in ("127.0.0.1", "localhost", "::1"),
            concurrency=self.concurrency,
            timeout=self.timeout,
            most_bytes=self.max_body_mb * 2**20,
        )

    @property
    def _budget(self) -> int:
        """The most answers."""
        return self.rounds + 1 if self.samples is None else self.samples

    @property
    def _baseline(self) -> str:
        if self.baseline is not None:
            return self.baseline
        return "fixed" if self.samples is None else "fixed+majority"

    def _deciding(self, name: str) -> "Deciding":
        from msjax.llm.live_rule import learns, require_recorded_with, rule_without_pilot
        from msjax.llm.serve.app import Deciding
        from msjax.rules.spec import PROBABILITIES, SCORES

        judged = self.judge is not None
        worth, price = self.worth_and_price()
        known: dict[str, Any] = {"value": worth, "price": price or 0.0}
        if self.posterior is not None and self._follows_curve(name):
            from msjax.llm.live import rule_from_posterior
            from msjax.posterior.store import load

            saved = load(self.posterior)
            benchmark = self._one(list(saved.benchmarks), self.posterior)
            rounds = self._budget - 1
            live = rule_from_posterior(name, saved, benchmark, rounds=rounds, **known)
        elif self._pilot and learns(name, self._budget, self._kind):
            from msjax.llm.live import rule_from_pilot

            live = rule_from_pilot(
                name, self._pilot, rounds=self._budget - 1, judged=judged, **known
            )
        else:
            live = rule_without_pilot(name, self._budget, self._kind, judged=judged)
        self._check_scores(name)
        if live.needs & (SCORES | PROBABILITIES) and learns(name, self._budget, self._kind):
            score = {None: "none", "token_logprob": None}.get(self.score, self.score)
            scoring = {"score": score, "reward_model": self.reward_model}
            require_recorded_with(name, self._pilot, scoring)
        return Deciding(name, live)

    @property
    def _kind(self) -> str:
        return "rounds" if self.samples is None else "samples"

    def _follows_curve(self, name: str) -> bool:
        from msjax.llm.live_rule import CARD
        from msjax.rules.registry import find_rule_for

        if name == CARD:
            return False
        return find_rule_for(name, self._budget, self._kind, "what is asked").from_curve

    def _check_scores(self, name: str) -> None:
        """Raises InputError for a rule that looks at scores of which there are none."""
        from msjax.llm.live_rule import CARD
        from msjax.rules.registry import find_rule_for
        from msjax.rules.spec import PROBABILITIES, SCORES

        if name == CARD:
            return
        needs = find_rule_for(name, self._budget, self._kind, "what is asked").needs
        if needs & (SCORES | PROBABILITIES) and self.score is None:
            raise InputError(f"rule {name!r} looks at scores; say which with --score confidence")
        if needs & PROBABILITIES and self.score == "token_logprob":
            raise InputError(f"rule {name!r} needs scores in [0, 1]; take --score confidence")

    @cached_property
    def _pilot(self) -> "list[Trajectory]":
        """The runs of one benchmark; none without --pilot."""
        if self.pilot is None:
            return []
        from msjax.data.importers.reading import import_records

        records = import_records(self.pilot).records
        names = list(dict.fromkeys(run.benchmark for run in records))
        name = self._one(names, self.pilot)
        chosen = [run for run in records if run.benchmark == name]
        if any((run.protocol == "parallel") != (self.samples is not None) for run in chosen):
            raise InputError(
                f"{self.pilot} does not hold {self._kind} of {name}, which are asked for; give a "
                f"pilot of {self._kind}"
            )
        models = {run.model for run in chosen}
        if len(models) > 1:
            raise InputError(
                f"{self.pilot} holds answers of {', '.join(sorted(models))}; give those of one"
            )
        return chosen

    def _one(self, names: list[str], path: Path) -> str:
        """The benchmark to learn from."""
        if self.benchmark is None and len(names) > 1:
            raise InputError(f"{path} knows {', '.join(names)}; choose one with --benchmark")
        if self.benchmark is not None and self.benchmark not in names:
            raise InputError(f"{path} knows {', '.join(names)} but not {self.benchmark}")
        return self.benchmark or names[0]

    def _scoring(self) -> tuple[Any, bool]:
        """What scores answers, and whether that waits for a server."""
        if self.score != "reward":
            if self.reward_server is not None or self.reward_model is not None:
                raise InputError("--reward-server and --reward-model are for --score reward")
            if self.score is None:
                return None, False
            from msjax.llm.scores import find_score

            if self.score == "certainty":
                raise InputError(
                    "--score certainty needs whole distributions, which servers do not report; "
                    "take confidence"
                )
            return find_score(self.score), False
        if self.reward_server is None or self.reward_model is None:
            raise InputError("--score reward needs --reward-server URL and --reward-model NAME")
        from msjax.llm.reward import RewardModel

        key = os.environ.get("REWARD_API_KEY") or "none"
        reward = RewardModel(
            self.reward_server,
            self.reward_model,
            api_key=key,
            timeout=self.timeout,
            patience=5.0,  # a client waits
        )
        return reward, True


async def _require_log(path: Path) -> None:
    """InputError here is one line; where the server starts it would be the server's traceback."""
    from msjax.llm.serve.log import open_log

    async with open_log(path):
        pass
