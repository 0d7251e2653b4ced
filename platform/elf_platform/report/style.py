"""The look of the report: one style sheet for light and dark, set inline. Nothing comes from elsewhere."""

import re

LIGHT = (
    "--page:#f6f5f2;--paper:#fdfdfc;--ink:#141413;--ink2:#55544f;--ink3:#8b8983;--rule:#e4e2dc;--axis:#c6c4bb;"
    "--s0:#8b8983;--s1:#2a78d6;--s2:#eb6834;--s3:#1b9c72;--s4:#6a5acd;--tint:#eaf2fc;"
    "--q0:#9cc4f2;--q1:#5f9fe8;--q2:#2a78d6;--q3:#1c5cab;--q4:#0d366b;"
)
DARK = (
    "--page:#131312;--paper:#1b1b1a;--ink:#f4f3ef;--ink2:#bdbbb2;--ink3:#8b8983;--rule:#2d2d2b;--axis:#454540;"
    "--s0:#8b8983;--s1:#4a94ec;--s2:#e2713f;--s3:#27a87c;--s4:#9a8ff0;--tint:#1c2a3c;"
    "--q0:#1d5399;--q1:#2a6fc4;--q2:#4a94ec;--q3:#8fbdf3;--q4:#d5e6fb;"
)
COLOURS = ("s0", "s1", "s2", "s3", "s4", "q0", "q1", "q2", "q3", "q4")

_CHART_RULES = """
.chart text{font:11.5px Inter,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink3)}
.chart .tick{font-variant-numeric:tabular-nums}.chart .label{fill:var(--ink2)}
.chart text.title{font-size:15px;font-weight:600;fill:var(--ink)}
.chart .grid{stroke:var(--rule)}.chart .axis{stroke:var(--axis)}.paper{fill:var(--paper)}.key{fill:var(--c)}
polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
.line{stroke:var(--c);stroke-width:2}.faint{stroke:var(--c);stroke-width:1;opacity:.28}.hit{stroke:none}
.rule{stroke-width:1.5;stroke-dasharray:5 4}
.mark line{stroke:var(--ink3);stroke-width:1;opacity:.75}
.bar{fill:var(--c);opacity:.55}.dot{fill:var(--c);stroke:var(--paper);stroke-width:1.5}
"""
CHART_CSS = "".join(f".{name}{{--c:var(--{name})}}" for name in COLOURS) + _CHART_RULES


def plain_chart_css() -> str:
    """The style of charts in light colours without variables, which browsers know but many programs that show or convert SVG do not."""
    values = dict(re.findall(r"--(\w+):([^;]+);", LIGHT))
    rules = []
    for selector, body in re.findall(r"([^{}]+)\{([^{}]+)\}", _CHART_RULES):
        for name in COLOURS if "var(--c)" in body else ("",):
            plain = re.sub(r"var\(--(\w+)\)", lambda found: values[found[1]], body.replace("var(--c)", f"var(--{name})"))
            rules.append(f"{'.' + name if name else ''}{selector.strip()}{{{plain}}}")
    return "".join(rules)

PAGE_CSS = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 Inter,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1200px;margin:0 auto;padding:56px 28px 96px}
h1{font-size:clamp(28px,4.4vw,44px);line-height:1.1;letter-spacing:-.025em;margin:.15em 0 .3em;font-weight:680;
overflow-wrap:anywhere}
h2{font-size:22px;letter-spacing:-.012em;margin:64px 0 4px;font-weight:650}
h3{font-size:15px;margin:0;font-weight:620}
.over{color:var(--ink3);font-size:13px;letter-spacing:.08em;text-transform:uppercase;margin:0}
.lead{color:var(--ink2);margin:0 0 20px;max-width:90ch}
.facts{color:var(--ink2);margin:0 0 32px;display:flex;flex-wrap:wrap;gap:2px 22px}
.facts b{font-weight:550;color:var(--ink)}
.cards{display:grid;grid-template-columns:repeat(var(--columns),1fr);gap:14px}
.card,figure,.sample,.panel{background:var(--paper);border:1px solid var(--rule);border-radius:12px}
.card{padding:14px 16px 12px;display:flex;flex-direction:column}
.card .name{color:var(--ink2);font-size:13.5px}
.card .value{font-size:28px;line-height:1.15;letter-spacing:-.025em;font-weight:640;margin-top:4px;overflow-wrap:anywhere}
.card .sub{color:var(--ink3);font-size:13px;margin-top:auto;padding-top:2px}
.spark{width:100%;max-width:150px;height:28px;margin-top:6px}.spark .line{stroke-width:1.75}.spark .end{fill:var(--c)}
.panel{margin-top:14px;padding:6px 18px}
.row{display:grid;grid-template-columns:170px 1fr auto;gap:14px;align-items:center;padding:9px 0;
border-top:1px solid var(--rule)}
.row:first-child{border-top:0}
.row .name{color:var(--ink2);font-size:14px}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
button{font:inherit;font-size:13px;color:var(--ink2);background:none;border:1px solid var(--rule);border-radius:7px;
padding:2px 10px;cursor:pointer}
button:hover{color:var(--ink);border-color:var(--axis)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,290px),1fr))}
figure{margin:0;padding:18px 18px 10px;display:flex;flex-direction:column;min-width:0}
figcaption{margin-bottom:8px}
.unit{color:var(--ink2);font-size:13.5px;margin:0}
.note{color:var(--ink3);font-size:13px;margin:6px 0 6px}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;color:var(--ink2);margin-top:6px}
.legend span::before{content:"";display:inline-block;width:16px;height:4px;border-radius:2px;background:var(--c);
margin-right:7px;vertical-align:middle}
.chart{width:100%;height:auto;display:block;margin-top:auto;touch-action:pan-y}
.at{display:grid;grid-template-columns:110px 1fr;gap:18px;padding:20px 0;border-top:1px solid var(--rule)}
.at>h3{padding-top:14px;font-variant-numeric:tabular-nums}
.at>h3 small{display:block;color:var(--ink3);font-weight:400;font-size:13px}
.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,290px),1fr));gap:14px}
.sample{padding:14px 18px;min-width:0}
.prose{font:16.5px/1.6 Charter,"Bitstream Charter","Iowan Old Style",Georgia,"Liberation Serif",serif;
white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.sample .prose{max-height:14.4em;overflow:auto;scrollbar-width:thin}
.sample small,.meta{color:var(--ink3);font-size:12.5px;font-variant-numeric:tabular-nums}
.walk{padding:4px 22px}
.stop{display:grid;grid-template-columns:118px 1fr;gap:22px;padding:16px 0;border-top:1px solid var(--rule)}
.stop:first-child{border-top:0}
.stop .t{font-weight:620;font-variant-numeric:tabular-nums}
.bar-t{height:4px;border-radius:2px;background:var(--rule);margin:7px 0 6px;overflow:hidden}
.bar-t i{display:block;height:100%;background:var(--s1)}
.prose .open{color:var(--ink3)}.walk .prose{max-height:12.8em;overflow:auto;scrollbar-width:thin}
details{margin-top:14px}summary{cursor:pointer;font-weight:600;padding:12px 0}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;vertical-align:top;padding:5px 16px 5px 0;border-top:1px solid var(--rule);font-weight:400}
th{color:var(--ink2);width:38%}tr.group th{color:var(--ink);font-weight:620;padding-top:16px;border-top:0}
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.events th,.told th{width:220px}.events th small{display:block;color:var(--ink3)}
.events tr:first-child>*,.told tr:first-child>*{border-top:0}
footer{margin-top:72px;color:var(--ink3);font-size:13px}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--paper);border:1px solid var(--axis);border-radius:9px;
padding:7px 11px;
font-size:13px;line-height:1.5;box-shadow:0 6px 22px rgba(0,0,0,.16);font-variant-numeric:tabular-nums;max-width:320px}
#tip b{font-weight:620;display:block}#tip span{display:flex;justify-content:space-between;gap:18px}
#tip i{font-style:normal;color:var(--ink2)}
#tip i::before{content:"";display:inline-block;width:10px;height:4px;border-radius:2px;background:var(--c);
margin-right:7px;vertical-align:middle}
#tip .words{color:var(--ink2);display:block;overflow-wrap:anywhere}.mark{pointer-events:none}
.cross{stroke:var(--ink3);stroke-dasharray:3 3}
@media(max-width:900px){.cards{grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}}
@media(max-width:640px){main{padding:32px 16px 64px}.at,.stop{grid-template-columns:1fr;gap:8px}
.row{grid-template-columns:1fr;gap:6px}.row button{justify-self:start}}
@media print{body{background:#fff}.sample .prose{max-height:none}figure,.card,.sample,.stop{break-inside:avoid}
button{display:none}}
"""
