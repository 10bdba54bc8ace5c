"""How the page of a what-if looks: light or dark as the reader's screen, wide or narrow, without fonts of its own."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ground:#fff;--text:#1c2126;--soft:#59636e;--rule:#d5dbe1;--raised:#f4f6f8;
--then:#3b5b92;--given:#b35900;--worse:#b3261e;--better:#1a7037}
@media (prefers-color-scheme:dark){:root{--ground:#14181c;--text:#e6e9ec;--soft:#a3adb8;--rule:#39424c;--raised:#1e242a;
--then:#8fb1ea;--given:#f2a65a;--worse:#ff8a80;--better:#7fd39a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,"Noto Sans","Noto Sans CJK SC",
"PingFang SC","Microsoft YaHei","WenQuanYi Micro Hei",sans-serif}
main{max-width:78rem;margin:0 auto;padding:1.5rem clamp(.75rem,3vw,2rem) 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-top:1px solid var(--rule);padding-top:1.5rem}
h3{font-size:1rem;margin:.5rem 0 0}
p{margin:.25rem 0 .75rem;max-width:48rem}
.axis{border-left:4px solid var(--given);padding-left:.75rem}
dl{display:flex;flex-wrap:wrap;gap:.25rem 2rem;margin:1rem 0;color:var(--soft)}
dl div{display:flex;gap:.5rem;flex-wrap:wrap}dd{margin:0;color:var(--text);overflow-wrap:anywhere}
.tiles{list-style:none;display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;padding:0;margin:1rem 0}
.tiles li{background:var(--raised);border-radius:.5rem;padding:.75rem 1rem}
.tiles b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:.875rem}
.tiles .then b{color:var(--then)}.tiles .given b{color:var(--given)}
.tiles .worse b,td.worse,.worse .sign{color:var(--worse)}.tiles .better b,td.better,.better .sign{color:var(--better)}
.key{display:flex;gap:1.5rem;color:var(--soft);font-size:.875rem}.key span{display:flex;align-items:center;gap:.35rem}
figure{margin:.5rem 0 1.25rem}figcaption{color:var(--soft);font-size:.875rem;margin-bottom:.25rem;max-width:48rem}
.row{display:grid;grid-template-columns:minmax(9rem,16rem) 1fr 12rem;gap:.75rem;align-items:center;min-height:1.75rem}
.label{text-align:right;overflow-wrap:anywhere;font-size:.9rem;line-height:1.2}
.value{font-variant-numeric:tabular-nums;font-size:.85rem;color:var(--soft)}
svg{display:block;overflow:visible}svg text{fill:var(--soft);font-size:11px}
svg line{stroke-width:2.5}line.grid{stroke:var(--rule);stroke-width:1}
line.then{stroke:var(--then)}line.given{stroke:var(--given)}line.worse{stroke:var(--worse)}line.better{stroke:var(--better)}
circle.then{fill:var(--ground);stroke:var(--then);stroke-width:2.5}circle.given{fill:var(--given);stroke:var(--given)}
.courses{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem 2rem}
.course line.then{stroke-dasharray:5 4}
.wide{overflow-x:auto;border:1px solid var(--rule);border-radius:.5rem;max-height:34rem;overflow-y:auto}
.wide:focus-visible,summary:focus-visible{outline:3px solid var(--then);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.875rem}
caption{text-align:left;padding:.5rem .75rem;color:var(--soft)}
th,td{padding:.3rem .6rem;border-top:1px solid var(--rule);text-align:left;white-space:nowrap}
thead th{background:var(--raised);font-weight:600}
.number{text-align:right;font-variant-numeric:tabular-nums}
tbody th{font-weight:600}
td.given,thead th[colspan]{border-left:0}
details{border-top:1px solid var(--rule);padding:.4rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
summary small{color:var(--soft)}.sign{font-weight:600}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:.5rem 2rem;padding:.25rem 0 .75rem 1.25rem}
.sides ul{margin:.25rem 0;padding-left:1.1rem;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
@media (max-width:46rem){.row{grid-template-columns:1fr auto;gap:0 .5rem;margin-bottom:.5rem}.label{text-align:left}
.row svg{grid-column:1/-1;grid-row:2}.scale .label,.scale .value{display:none}.sides{padding-left:0}}
@media print{details{break-inside:avoid}.wide{max-height:none;overflow:visible}}
"""
