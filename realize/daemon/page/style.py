"""How the page looks: one style sheet, and the policy that lets browsers apply it and nothing else.

Colours are chosen for a contrast of 4.5 to 1 at least on every ground that they stand on, in both schemes (WCAG 2.2,
1.4.3); a colour never says anything that a word does not say as well.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

LIGHT: Final = {
    "paper": "#f6f6f3",
    "card": "#ffffff",
    "ink": "#1c1d1f",
    "soft": "#5a5e63",
    "line": "#dfdfd9",
    "fill": "#d3e2f4",
    "bad": "#b0241c",
    "warn": "#7d5300",
    "good": "#1b6a3d",
    "busy": "#1d5ca6",
}
"""Colours on a light ground, as variables of the style sheet."""

DARK: Final = {
    "paper": "#0f1113",
    "card": "#181b1e",
    "ink": "#e8e7e3",
    "soft": "#a2a7ad",
    "line": "#2b3034",
    "fill": "#1e3550",
    "bad": "#ff8b80",
    "warn": "#efb84c",
    "good": "#79d397",
    "busy": "#87b6f5",
}
"""The same on a dark one."""

GROUNDS: Final = ("paper", "card")
"""Those of them that text stands on."""

INKS: Final = ("ink", "soft", "bad", "warn", "good", "busy")
"""Those of them that text has."""


def _variables(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{value};" for name, value in colours.items()) + "}"


# Without < > and &, which mean something else where the page holds it.
STYLE: Final = f"""
{_variables(LIGHT)}
@media (prefers-color-scheme:dark){{{_variables(DARK)}}}
:root{{color-scheme:light dark;-webkit-text-size-adjust:100%}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:74rem;padding:1rem 1rem 3rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:break-word}}
h1,h3,bdi,.route,.error,.where strong,th small{{overflow-wrap:anywhere}}
h1,h2,h3,p,dl,dd,ul,table,figure{{margin:0;padding:0}}
a{{color:inherit;text-underline-offset:.2em}}
a:focus-visible{{outline:.2rem solid var(--busy);outline-offset:.2rem}}
.where{{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;color:var(--soft);font-size:.875rem}}
.where strong{{color:var(--ink);font-weight:600}}
h1{{margin:.75rem 0 .15rem;font-size:clamp(1.6rem,6vw,2.25rem);line-height:1.15;font-weight:650;
letter-spacing:-.02em;text-wrap:balance}}
h2{{margin:2.25rem 0 .6rem;font-size:.8125rem;font-weight:600;letter-spacing:.06em;text-transform:uppercase;
color:var(--soft)}}
h3{{font-size:1.0625rem;line-height:1.3;font-weight:600}}
.lead{{color:var(--soft)}}
.bad{{--tone:var(--bad)}}.warn{{--tone:var(--warn)}}.good{{--tone:var(--good)}}.busy{{--tone:var(--busy)}}
.calm{{--tone:var(--soft)}}
h1.bad,h1.warn{{color:var(--tone)}}
.cards{{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));
list-style:none}}
.cards+.sheet{{margin-top:.75rem}}
.cards.even,.cards.large{{grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr))}}
.card{{background:var(--card);border:1px solid var(--line);border-radius:.625rem;padding:.85rem 1rem;min-width:0}}
article.card{{border-left:.25rem solid var(--tone);display:flex;flex-direction:column}}
article figure{{margin-top:auto}}
.card header{{display:flex;gap:.75rem;justify-content:space-between;align-items:baseline}}
.state{{flex:none;color:var(--tone);font-size:.875rem;font-weight:600}}
.route,.facts,.note,.more{{color:var(--soft);font-size:.875rem}}
.error{{margin-top:.5rem;color:var(--bad);font-size:.9375rem}}
dl{{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem;margin-top:.6rem;font-size:.9375rem}}
dt{{color:var(--soft)}}
dd{{text-align:right}}
dd small{{margin-left:.5rem;color:var(--soft);font-size:.8125rem;white-space:nowrap}}
.more{{margin-top:.6rem}}
svg{{display:block;width:100%;height:2.75rem;margin-top:.6rem;overflow:visible}}
svg polygon{{fill:var(--fill)}}
svg polyline{{fill:none;stroke:var(--busy);stroke-width:1.5;stroke-linejoin:round;vector-effect:non-scaling-stroke}}
svg line{{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}}
.large svg{{height:5rem}}
figcaption{{margin-top:.3rem;color:var(--soft);font-size:.875rem}}
.axis{{display:flex;justify-content:space-between;color:var(--soft);font-size:.75rem;margin-top:.15rem}}
table{{width:100%;border-collapse:collapse;font-size:.9375rem}}
th,td{{padding:.5rem .75rem .5rem 0;border-top:1px solid var(--line);text-align:left;vertical-align:top;
font-weight:400}}
th:last-child,td:last-child{{padding-right:0}}
thead th{{border-top:0;padding-top:0;color:var(--soft);font-size:.8125rem;vertical-align:bottom}}
tbody th{{font-weight:600;min-width:6rem}}
.number{{text-align:right}}
td small,th small{{display:block;color:var(--soft);font-size:.8125rem;font-weight:400}}
td svg{{height:1.75rem;margin:0;min-width:7rem}}
.sheet{{padding-top:.75rem;padding-bottom:.35rem}}
progress{{appearance:none;-webkit-appearance:none;display:block;width:100%;height:.4rem;margin:.5rem 0 .4rem;border:0;
border-radius:.2rem;background:var(--line);color:var(--busy);overflow:hidden}}
progress::-webkit-progress-bar{{background:var(--line)}}
progress::-webkit-progress-value{{background:var(--busy)}}
progress::-moz-progress-bar{{background:var(--busy)}}
footer{{margin-top:2.5rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--soft);font-size:.8125rem}}
@media (max-width:44rem){{.wide{{display:none}}}}
@media (min-width:44.01rem){{td .narrow{{display:none}}}}
@media (forced-colors:active){{svg polyline{{stroke:CanvasText}}progress{{border:1px solid}}}}
"""


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_hash(STYLE)}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""
