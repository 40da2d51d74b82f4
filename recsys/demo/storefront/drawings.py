"""What the pictures of the simulated shop's products show: one silhouette a kind of product.

A drawing fills a square of 200 units, light from the left, its floor at y = 168. `body` is the path
of its main part, which takes the pattern of the variant; `behind` and `front` are SVG around it.
Names that begin with $ are put in by `recsys.demo.storefront.pictures`: $b, $w, $m, $l are the body's
material, the second one, metal and paper; $a, $k, $s an accent, a dark and a shadow; $line a stroke.
"""

from __future__ import annotations

from typing import NamedTuple


class Drawing(NamedTuple):
    behind: str
    body: str
    front: str


_LEGS = '<path d="M{x1} {top}L{x2} 168M{x3} {top}L{x4} 168" $line stroke="$k" stroke-width="6"/>'


def _legs(x1: int, x2: int, x3: int, x4: int, top: int) -> str:
    return _LEGS.format(x1=x1, x2=x2, x3=x3, x4=x4, top=top)


DRAWINGS: dict[str, Drawing] = {
    "teapot": Drawing(
        '<path d="M140 92q40-12 36 24q-4 26-38 26" $line stroke="$w" stroke-width="9"/>'
        '<path d="M68 132q-30-4-40-46l-9-9l16-5q18 24 36 28z" fill="$b"/>',
        "M54 122c0-30 22-46 50-46s50 16 50 46c0 28-18 46-50 46s-50-18-50-46z",
        '<path d="M74 82q30-26 60 0q-30 9-60 0z" fill="$w"/><circle cx="104" cy="62" r="8" fill="$w"/>'
        '<path d="M68 108q6-18 22-22" $line stroke="#fff" stroke-opacity=".5"/>',
    ),
    "mug": Drawing(
        '<path d="M134 92q40-8 38 22q-3 30-42 28" $line stroke="$b" stroke-width="12"/>',
        "M52 70h88l-5 88q-1 10-12 10h-54q-11 0-12-10z",
        '<ellipse cx="96" cy="70" rx="44" ry="10" fill="$l"/>'
        '<ellipse cx="96" cy="72" rx="37" ry="6.500" fill="#6b4429"/>'
        '<path d="M80 52q-8-9 0-17t0-17M102 52q-8-9 0-17t0-17" $line stroke="$k" stroke-opacity=".22"/>',
    ),
    "kettle": Drawing(
        '<path d="M60 92q-2-54 42-54t44 54" $line stroke="$k" stroke-width="9"/>'
        '<path d="M146 124l32-34l8 8l-30 48z" fill="$m"/>',
        "M58 92h88l16 62q2 14-12 14h-96q-14 0-12-14z",
        '<path d="M66 92q36-24 72 0z" fill="$m"/><circle cx="102" cy="74" r="7" fill="$w"/>'
        '<path d="M72 33h60v10h-60z" fill="$w"/>',
    ),
    "carafe": Drawing(
        '<path d="M84 34h32l-4 40q36 22 36 64q0 30-26 30h-44q-26 0-26-30q0-42 36-64z" fill="$l"/>',
        "M59 118q41-14 83 0q10 50-20 50h-44q-30 0-19-50z",
        '<path d="M84 34h32l-4 40h-24z" fill="$l" fill-opacity=".6"/>'
        '<path d="M80 66h40v14h-40z" fill="$w"/><path d="M68 112q6-16 16-24" $line stroke="#fff"/>'
        '<ellipse cx="100" cy="34" rx="16" ry="4" fill="$m"/>',
    ),
    "coffee-grinder": Drawing(
        '<path d="M100 62V36h46" $line stroke="$k" stroke-width="6"/>'
        '<circle cx="148" cy="34" r="10" fill="$w"/><path d="M62 96q2-36 38-36t38 36z" fill="$m"/>',
        "M56 96h88v72h-88z",
        '<path d="M50 92h100v10h-100z" fill="$k"/><path d="M66 122h68v34h-68z" fill="$w"/>'
        '<circle cx="100" cy="139" r="6" fill="$m"/>',
    ),
    "cutting-board": Drawing(
        '<path d="M44 60l22-18h84v108l-18 18z" fill="$s" fill-opacity=".15"/>',
        "M46 58q0-10 10-10h24q2-22 20-22t20 22h24q10 0 10 10v100q0 10-10 10h-88q-10 0-10-10z",
        '<circle cx="100" cy="44" r="7" fill="$g"/>'
        '<path d="M58 76h84M58 110h84M58 142h84" $line stroke="$k" stroke-opacity=".18" stroke-width="2"/>'
        '<path d="M132 100c18-14 34-4 30 22c-4 24-22 42-34 42c-14-10-14-44 4-64z" fill="$a"/>'
        '<path d="M136 100q2-12 12-18" $line stroke="$k"/>',
    ),
    "chefs-knife": Drawing(
        '<path d="M34 66q60 4 98 42l-8 20q-58-6-92-50z" fill="$m"/>'
        '<path d="M34 66q60 4 98 42l-3 7q-44-32-95-49z" fill="#fff" fill-opacity=".5"/>',
        "M126 112l12-14q8-6 16 0l26 24q8 8 2 16l-4 6q-6 8-16 2l-40-22z",
        '<g fill="$m"><circle cx="144" cy="116" r="3"/><circle cx="157" cy="126" r="3"/>'
        '<circle cx="169" cy="136" r="3"/></g>',
    ),
    "skillet": Drawing(
        '<path d="M132 116l56-36q8-4 10 4t-6 12l-52 36z" fill="$w"/>',
        "M22 116h126q0 46-32 46h-62q-32 0-32-46z",
        '<ellipse cx="85" cy="116" rx="63" ry="19" fill="$k"/>'
        '<ellipse cx="85" cy="119" rx="53" ry="14" fill="$s" fill-opacity=".55"/>'
        '<path d="M64 118q10-12 26-6t22 6t-22 11t-26-11z" fill="#fff8ea"/>'
        '<circle cx="90" cy="118" r="7" fill="#f2b632"/>',
    ),
    "casserole": Drawing(
        '<path d="M36 108h-12q-8 0-8 8t8 8h12M164 108h12q8 0 8 8t-8 8h-12" $line stroke="$k" stroke-width="7"/>',
        "M34 98h132v44q0 26-26 26h-80q-26 0-26-26z",
        '<path d="M34 96q6-32 66-32t66 32z" fill="$b"/><path d="M28 92h144v11h-144z" fill="$k" fill-opacity=".55"/>'
        '<path d="M88 62q0-14 12-14t12 14z" fill="$m"/>'
        '<path d="M52 84q10-10 26-12" $line stroke="#fff" stroke-opacity=".5"/>',
    ),
    "mixing-bowl": Drawing(
        '<path d="M126 28l-36 72M140 34l-42 68" $line stroke="$m" stroke-width="5"/>'
        '<path d="M132 10l22 12l-14 26l-20-11z" fill="$w"/>',
        "M24 92h152q-4 66-50 72v4h-52v-4q-46-6-50-72z",
        '<ellipse cx="100" cy="92" rx="76" ry="15" fill="$l"/>'
        '<ellipse cx="100" cy="95" rx="64" ry="9" fill="$a" fill-opacity=".75"/>',
    ),
    "apron": Drawing(
        '<path d="M74 58q-6-36 26-36t26 36" $line stroke="$k" stroke-width="5"/>'
        '<path d="M52 100q-20 6-30 24M148 100q20 6 30 24" $line stroke="$k"/>',
        "M72 52h56q4 32 24 44v62q0 10-10 10h-84q-10 0-10-10v-62q20-12 24-44z",
        '<path d="M72 116h56v26q0 8-8 8h-40q-8 0-8-8z" fill="$w"/>'
        '<path d="M72 124h56M100 124v26" $line stroke="$k" stroke-opacity=".3" stroke-width="2"/>',
    ),
    "tea-towel": Drawing(
        '<path d="M22 52h156" $line stroke="$m" stroke-width="8"/>'
        '<circle cx="22" cy="52" r="8" fill="$w"/><circle cx="178" cy="52" r="8" fill="$w"/>'
        '<path d="M78 52h66v92h-66z" fill="$w"/>',
        "M54 50q0-6 8-6h66q8 0 8 6v112q-10 8-20 0q-11 8-22 0q-10 8-20 0q-11 8-20 0z",
        '<path d="M54 138h82M54 146h82" $line stroke="$a" stroke-width="3"/>'
        '<path d="M54 54h82" $line stroke="$k" stroke-opacity=".2"/>'
        '<path d="M76 60v70M114 60v70" $line stroke="#fff" stroke-opacity=".3"/>',
    ),
    "tablecloth": Drawing(
        '<path d="M58 140v28M142 140v28" $line stroke="$k" stroke-width="7"/>',
        "M30 74q70-18 140 0l10 62q-10 10-20 0q-10 14-22 2q-12 14-26 2q-12 12-24 0q-14 12-26-2q-12 12-22-2q-10 10-20 0z",
        '<ellipse cx="100" cy="73" rx="70" ry="11" fill="#fff" fill-opacity=".35"/>'
        '<path d="M86 60h28l-5 12h-18z" fill="$w"/><path d="M100 60V38M100 46q-14-2-14-14q14 0 14 14q0-14 14-16q0 14-14 16" fill="#6f9a5b" stroke="#4f7a45" stroke-width="2"/>',
    ),
    "napkin-set": Drawing(
        '<path d="M46 150l14-74l88-16l12 82z" fill="$w"/><path d="M38 158l8-78l92-6l18 80z" fill="$l"/>',
        "M30 166l6-80q56-10 96 2l20 78z",
        '<path d="M74 112q24-12 46 0l4 22q-28 10-52 0z" fill="$m"/>'
        '<path d="M78 118q20-8 38 0" $line stroke="#fff" stroke-opacity=".7" stroke-width="3"/>',
    ),
    "candle-holder": Drawing(
        '<path d="M88 34h24v58h-24z" fill="#fbf5e6"/><path d="M100 34v-8" $line stroke="$k" stroke-width="3"/>'
        '<path d="M100 4q14 16 0 26q-14-10 0-26z" fill="#f6a72c"/><circle cx="100" cy="20" r="26" fill="#ffd98a" fill-opacity=".28"/>',
        "M80 86h40v12l-12 8v32l34 18v12h-84v-12l34-18v-32l-12-8z",
        '<path d="M74 82h52v9h-52z" fill="$m"/><path d="M90 112h20v8h-20z" fill="$m"/>'
        '<path d="M112 44q6 6 0 22v-22z" fill="#efe3c4"/>',
    ),
    "vase": Drawing(
        '<path d="M98 60Q92 30 72 18M102 60Q104 26 122 10M106 60Q118 38 146 34" $line stroke="#5c8350" stroke-width="3.500"/>'
        '<g fill="$a"><circle cx="71" cy="18" r="12"/><circle cx="123" cy="12" r="10"/><circle cx="148" cy="33" r="13"/></g>'
        '<g fill="#fff" fill-opacity=".6"><circle cx="71" cy="18" r="4"/><circle cx="123" cy="12" r="3"/><circle cx="148" cy="33" r="4"/></g>'
        '<path d="M88 46q-26-2-28-18q24-2 28 18zM116 46q2-20 26-18q0 18-26 18z" fill="#7da36c"/>',
        "M82 58h36q-2 18 12 34q22 26 8 60q-6 16-22 16h-32q-16 0-22-16q-14-34 8-60q14-16 12-34z",
        '<ellipse cx="100" cy="58" rx="18" ry="4.500" fill="$k"/>'
        '<path d="M68 130q-2-20 12-34" $line stroke="#fff" stroke-opacity=".55"/>',
    ),
    "picture-frame": Drawing(
        '<path d="M122 60l36 108" $line stroke="$k" stroke-width="6"/>',
        "M40 34h112v134h-112z",
        '<path d="M52 46h88v110h-88z" fill="#fdfbf6"/><path d="M62 58h68v86h-68z" fill="$g"/>'
        '<circle cx="112" cy="78" r="10" fill="$a"/>'
        '<path d="M62 128l22-30l18 22l12-14l16 22v16h-68z" fill="$w"/>'
        '<path d="M62 138q34-12 68 0v6h-68z" fill="$k" fill-opacity=".45"/>',
    ),
    "wall-clock": Drawing(
        '<circle cx="104" cy="106" r="70" fill="$s" fill-opacity=".16"/>',
        "M100 30a70 70 0 1 1 0 140a70 70 0 1 1 0-140z",
        '<circle cx="100" cy="100" r="57" fill="#fdfbf6"/>'
        '<path d="M100 50v10M100 140v10M50 100h10M140 100h10M125 57l-4 7M143 75l-7 4M143 125l-7-4M125 143l-4-7M75 143l4-7M57 125l7-4M57 75l7 4M75 57l4 7" $line stroke="$k" stroke-width="3"/>'
        '<path d="M100 100L76 84" $line stroke="$k" stroke-width="6"/><path d="M100 100l30-28" $line stroke="$k"/>'
        '<path d="M100 100l6 38" $line stroke="$a" stroke-width="2.500"/><circle cx="100" cy="100" r="5" fill="$a"/>',
    ),
    "table-lamp": Drawing(
        '<ellipse cx="100" cy="84" rx="86" ry="76" fill="#ffe2a0" fill-opacity=".28"/>'
        '<path d="M96 96h8v22h-8z" fill="$m"/>'
        '<path d="M100 112q30 14 24 36q-2 12-10 14h-28q-8-2-10-14q-6-22 24-36z" fill="$w"/>'
        '<path d="M70 160h60q4 0 4 8h-68q0-8 4-8z" fill="$k"/>',
        "M72 34h56l26 66h-108z",
        '<path d="M46 100q54 12 108 0" $line stroke="#ffe9b8" stroke-width="4"/>'
        '<path d="M128 100v18" $line stroke="$k" stroke-width="2"/><circle cx="128" cy="120" r="3" fill="$a"/>',
    ),
    "floor-lamp": Drawing(
        '<ellipse cx="92" cy="60" rx="68" ry="56" fill="#ffe2a0" fill-opacity=".28"/>'
        '<path d="M92 60L60 168M92 60v108M92 60l32 108" $line stroke="$w" stroke-width="6"/>'
        '<path d="M72 126h40" $line stroke="$m" stroke-width="3"/>',
        "M66 18h52l20 54h-92z",
        '<path d="M46 72q46 10 92 0" $line stroke="#ffe9b8" stroke-width="4"/>',
    ),
    "pendant-light": Drawing(
        '<path d="M100 0v58" $line stroke="$k" stroke-width="3"/>'
        '<path d="M52 118l-26 60h148l-26-60z" fill="#ffe2a0" fill-opacity=".35"/>'
        '<circle cx="100" cy="120" r="13" fill="#fff3cf"/>',
        "M90 54h20q4 14 22 20q26 12 26 44h-116q0-32 26-44q18-6 22-20z",
        '<path d="M40 114h120v7h-120z" fill="$m"/><path d="M90 48h20v10h-20z" fill="$w"/>'
        '<path d="M58 104q4-16 18-22" $line stroke="#fff" stroke-opacity=".5"/>',
    ),
    "rug": Drawing(
        '<path d="M36 148v14M50 148v14M64 148v14M78 148v14M92 148v14M106 148v14M120 148v14M134 148v14M148 148v14M164 148v14" $line stroke="$w" stroke-width="3"/>'
        '<path d="M48 52V38M62 52V38M76 52V38M90 52V38M104 52V38M118 52V38M132 52V38M150 52V38" $line stroke="$w" stroke-width="3"/>',
        "M44 50h112l14 100h-140z",
        '<path d="M54 60h92l11 80h-114z" fill="none" stroke="$a" stroke-width="4"/>'
        '<path d="M100 74l24 26l-24 26l-24-26z" fill="$w"/><path d="M100 88l11 12l-11 12l-11-12z" fill="$a"/>',
    ),
    "cushion": Drawing(
        "",
        "M42 50q58 12 116 0q-12 56 4 112q-62-10-124 0q16-56 4-112z",
        '<path d="M42 50q58 12 116 0q-12 56 4 112q-62-10-124 0q16-56 4-112z" fill="none" stroke="$a" stroke-width="4"/>'
        '<path d="M70 70q-8 30 0 66M132 74q6 28 0 58" $line stroke="$s" stroke-opacity=".12" stroke-width="6"/>'
        '<g fill="$a"><circle cx="42" cy="50" r="7"/><circle cx="158" cy="50" r="7"/><circle cx="38" cy="162" r="7"/><circle cx="162" cy="162" r="7"/></g>',
    ),
    "throw": Drawing(
        '<path d="M36 150l-2 18M48 152l-1 16M60 153v15M72 153v15M84 152l1 16" $line stroke="$a" stroke-width="3"/>',
        "M58 52q44-18 94 0q22 10 18 60q-2 24-14 22q-34-8-56-4q-8 10-10 26q-30-8-60-4q6-74 28-100z",
        '<path d="M150 52q-34 10-42 74M58 58q20 14 22 96" $line stroke="$s" stroke-opacity=".16" stroke-width="6"/>'
        '<path d="M112 124q2 20-10 28l-12 4q2-16 10-26z" fill="$s" fill-opacity=".2"/>',
    ),
    "duvet-cover": Drawing(
        '<path d="M22 84V44q0-8 8-8h140q8 0 8 8v40z" fill="$w"/><path d="M20 128h160v24h-160zM26 152h8v16h-8zM166 152h8v16h-8z" fill="$k"/>'
        '<path d="M34 76q0-16 12-16h38q12 0 12 16v12h-62zM104 76q0-16 12-16h38q12 0 12 16v12h-62z" fill="$l"/>',
        "M18 96q0-12 12-12h140q12 0 12 12v44q-82 12-164 0z",
        '<path d="M18 98q0-14 14-14h136q14 0 14 14v8q-82 12-164 0z" fill="#fff" fill-opacity=".55"/>',
    ),
    "pillow": Drawing(
        '<path d="M34 96q64-10 132 0q10 26 2 54q-66 18-136 0q-8-28 2-54z" fill="$w"/>',
        "M30 66q70-16 140 0q12 30 2 62q-70 18-144 0q-10-32 2-62z",
        '<path d="M46 78q-4 20 2 38M154 78q4 20-2 38" $line stroke="$s" stroke-opacity=".14" stroke-width="5"/>'
        '<path d="M56 72q40-8 70-4" $line stroke="#fff" stroke-opacity=".6"/>',
    ),
    "towel-set": Drawing(
        '<path d="M34 136h132q8 0 8 8v16q0 8-8 8h-132q-8 0-8-8v-16q0-8 8-8z" fill="$w"/>'
        '<path d="M40 100h120q8 0 8 8v18q0 8-8 8h-120q-8 0-8-8v-18q0-8 8-8z" fill="$l"/>',
        "M46 60h108q10 0 10 10v18q0 10-10 10h-108q-10 0-10-10v-18q0-10 10-10z",
        '<path d="M150 60q-14 18 0 38M156 100q-14 16 0 34M162 136q-14 16 0 32" $line stroke="$s" stroke-opacity=".22"/>'
        '<path d="M60 60v38M66 60v38" $line stroke="$a"/><path d="M60 100v34M66 136v32" $line stroke="$k" stroke-opacity=".25"/>'
        '<path d="M100 58q-16-18 0-32q16 14 0 32z" fill="#7da36c"/>',
    ),
    "bath-mat": Drawing(
        '<path d="M24 150q0-8 8-8h8l-6 20h-6q-6 0-4-12z" fill="$k"/>',
        "M48 72h104q6 0 8 6l20 74q2 10-8 10h-144q-10 0-8-10l20-74q2-6 8-6z",
        '<path d="M54 84h92l16 64h-124z" fill="none" stroke="#fff" stroke-opacity=".55" stroke-width="4"/>'
        '<path d="M84 98q8-14 18-6t-2 22t-14 12t-8-12t6-16zM118 104q10-6 14 4t-6 20t-14 6t-2-16t8-14z" fill="$a" fill-opacity=".7"/>',
    ),
    "soap-dispenser": Drawing(
        '<path d="M100 74V40H66q-6 0-6 8v6" $line stroke="$m" stroke-width="8"/><path d="M84 62h32v18h-32z" fill="$m"/>',
        "M78 78h44q22 6 22 28v52q0 10-10 10h-68q-10 0-10-10v-52q0-22 22-28z",
        '<path d="M74 112h52v34h-52z" fill="$l"/><path d="M82 122h36M82 130h26" $line stroke="$k" stroke-opacity=".5" stroke-width="2.500"/>'
        '<path d="M66 150v-42q0-12 8-18" $line stroke="#fff" stroke-opacity=".5"/>',
    ),
    "laundry-basket": Drawing(
        '<path d="M58 72q10-26 30-16q16-22 34-4q26-6 22 20z" fill="$a"/><path d="M84 70q10-28 34-16l4 16z" fill="$l"/>',
        "M42 70h116l-12 90q-2 8-10 8h-72q-8 0-10-8z",
        '<path d="M49 92h102M52 112h96M55 132h90M58 152h84" $line stroke="$k" stroke-opacity=".2" stroke-width="3"/>'
        '<path d="M38 64h124q4 0 4 6t-4 6h-124q-4 0-4-6t4-6z" fill="$w"/><path d="M84 92h32q4 0 4 6t-4 6h-32q-4 0-4-6t4-6z" fill="$k" fill-opacity=".6"/>',
    ),
    "storage-box": Drawing(
        '<path d="M140 92l30-14v66l-30 24z" fill="$k" fill-opacity=".75"/><path d="M28 78l30-16h116l-32 18z" fill="$w"/>',
        "M30 88h112v80h-112z",
        '<path d="M24 76h124v18h-124z" fill="$b"/><path d="M148 76l28-15v16l-28 17z" fill="$k" fill-opacity=".55"/>'
        '<path d="M24 92h124" $line stroke="$s" stroke-opacity=".25" stroke-width="2"/>'
        '<path d="M64 112h44v28h-44z" fill="$l"/><path d="M72 122h28M72 130h18" $line stroke="$k" stroke-opacity=".5" stroke-width="2.500"/>',
    ),
    "bookshelf": Drawing(
        '<path d="M152 26l14 8v132l-14 2z" fill="$k" fill-opacity=".6"/>',
        "M44 24h110v144h-110z",
        '<path d="M53 33h92v36h-92zM53 77h92v38h-92zM53 123h92v36h-92z" fill="$s" fill-opacity=".3"/>'
        '<path d="M57 40h9v29h-9zM79 38h8v31h-8z" fill="$a"/><path d="M68 44h9v25h-9z" fill="$w"/><path d="M90 42l8-2l7 28l-8 1z" fill="$l"/>'
        '<path d="M116 54h20l-3 15h-14z" fill="$w"/><path d="M126 54q-12-4-10-15q10 2 10 15q0-15 12-17q0 14-12 17" fill="#7da36c"/>'
        '<path d="M104 86h9v29h-9z" fill="$w"/><path d="M115 82h10v33h-10z" fill="$l"/><path d="M127 88h9v27h-9z" fill="$a"/><path d="M60 98q14-18 28 0v17h-28z" fill="$m"/>'
        '<path d="M60 134h34v25h-34z" fill="$w"/><path d="M104 146h34v6h-34zM108 152h28v7h-28z" fill="$a"/>',
    ),
    "side-table": Drawing(
        _legs(62, 44, 138, 156, 92) + '<path d="M100 92v70" $line stroke="$k" stroke-width="5"/>',
        "M30 82q70-16 140 0q6 12-6 14q-64 10-128 0q-12-2-6-14z",
        '<ellipse cx="100" cy="81" rx="70" ry="10" fill="#fff" fill-opacity=".3"/>'
        '<path d="M58 124h84l3 8h-90z" fill="$w"/><path d="M72 50h24v28q-12 4-24 0z" fill="$l"/><path d="M96 56q12 0 10 9t-12 6" $line stroke="$l" stroke-width="3"/>'
        '<path d="M112 70h34v6h-34zM116 64h28v6h-28z" fill="$a"/>',
    ),
    "armchair": Drawing(
        '<path d="M58 150l-8 20M142 150l8 20" $line stroke="$w" stroke-width="8"/>'
        '<path d="M52 62q0-30 48-30t48 30v60h-96z" fill="$b"/><path d="M64 64q0-20 36-20t36 20v50h-72z" fill="$s" fill-opacity=".1"/>',
        "M56 108h88v30h-88z",
        '<path d="M30 90q0-14 14-14t16 14v36h80v-36q2-14 16-14t14 14v54q0 12-12 12h-116q-12 0-12-12z" fill="$b"/>'
        '<path d="M60 110h80v16h-80z" fill="#fff" fill-opacity=".2"/><path d="M60 126v16h80v-16" $line stroke="$s" stroke-opacity=".2" stroke-width="3"/>'
        '<path d="M84 74h34q6 0 6 6v26q0 6-6 6h-34q-6 0-6-6v-26q0-6 6-6z" fill="$a"/>',
    ),
    "desk": Drawing(
        _legs(34, 28, 110, 116, 96),
        "M20 82h160v16h-160z",
        '<path d="M116 98h56v70h-56z" fill="$w"/><path d="M122 104h44v18h-44zM122 126h44v18h-44zM122 148h44v16h-44z" fill="#fff" fill-opacity=".2"/>'
        '<g fill="$m"><circle cx="144" cy="113" r="3"/><circle cx="144" cy="135" r="3"/><circle cx="144" cy="156" r="3"/></g>'
        '<path d="M36 82l8-40h52l-8 40z" fill="$k"/><path d="M42 76l6-28h40l-6 28z" fill="$g"/>'
        '<path d="M140 82V56l18-16" $line stroke="$m"/><path d="M150 34l18 14l6-16l-12-8z" fill="$a"/>',
    ),
    "desk-chair": Drawing(
        '<path d="M98 122v24M98 146l-36 16M98 146l36 16M98 146v20" $line stroke="$k" stroke-width="7"/>'
        '<g fill="$k"><circle cx="60" cy="165" r="6"/><circle cx="136" cy="165" r="6"/><circle cx="98" cy="168" r="6"/></g>'
        '<path d="M128 96q16 2 14 20" $line stroke="$m" stroke-width="7"/>',
        "M66 34q32-12 62 0q8 30-2 62q-28 8-56 0q-12-32-4-62z",
        '<path d="M52 108q46-12 92 0q8 16-6 18q-40 6-80 0q-14-2-6-18z" fill="$w"/>'
        '<path d="M78 44q-4 22 2 42" $line stroke="#fff" stroke-opacity=".4"/>',
    ),
    "notebook": Drawing(
        '<path d="M54 40l98 8v124l-98-4z" fill="#fbf7ec"/><path d="M54 44l98 7v5l-98-6z" fill="$s" fill-opacity=".12"/>',
        "M48 32h92q8 0 8 8v120q0 8-8 8h-92z",
        '<path d="M48 32h16v136h-16z" fill="$k" fill-opacity=".5"/><path d="M126 32h8v136h-8z" fill="$a"/>'
        '<path d="M78 58h36v26h-36z" fill="$l"/><path d="M84 68h24M84 75h16" $line stroke="$k" stroke-opacity=".5" stroke-width="2"/>'
        '<path d="M100 168v18l6-6l6 6v-18z" fill="$a"/>',
    ),
    "fountain-pen": Drawing(
        '<path d="M30 150q34 26 66 4t60 8" $line stroke="$k" stroke-opacity=".55" stroke-width="3"/>'
        '<path d="M62 110l22 22l-50 24l-2-2z" fill="$m"/><path d="M33 155l34-30" $line stroke="$k" stroke-width="2"/>',
        "M62 108l76-76q12-10 24 2t2 24l-76 76z",
        '<path d="M112 58l24 24l-6 6l-24-24z" fill="$m"/><path d="M144 34q18-6 16 10l-22 34" $line stroke="$m" stroke-width="5"/>'
        '<path d="M62 108l10-10l26 26l-10 10z" fill="$k"/><path d="M84 92l44-44" $line stroke="#fff" stroke-opacity=".5"/>',
    ),
    "backpack": Drawing(
        '<path d="M80 44q0-24 20-24t20 24" $line stroke="$k" stroke-width="7"/>'
        '<path d="M54 84q-22 10-18 62M146 84q22 10 18 62" $line stroke="$w" stroke-width="10"/>',
        "M50 88q0-50 50-50t50 50v64q0 16-16 16h-68q-16 0-16-16z",
        '<path d="M50 84q50 22 100 0v20q-50 22-100 0z" fill="$k" fill-opacity=".4"/>'
        '<path d="M66 118h68v32q0 8-8 8h-52q-8 0-8-8z" fill="$w"/><path d="M66 128h68" $line stroke="$k" stroke-opacity=".5" stroke-width="3"/>'
        '<path d="M94 96h12v24h-12z" fill="$m"/><path d="M66 74q6-20 22-24" $line stroke="#fff" stroke-opacity=".45"/>',
    ),
    "plant-pot": Drawing(
        '<path d="M100 112Q96 66 62 50M100 112Q102 60 100 26M100 112q6-46 42-60" $line stroke="#4f7a45" stroke-width="4"/>'
        '<path d="M66 58Q30 56 26 26q34-2 40 32zM100 60Q74 34 98 4q28 26 2 56zM136 62q4-36 42-34q-2 34-42 34z" fill="#6f9a5b"/>'
        '<path d="M82 88Q44 96 34 72q30-14 48 16zM118 90q34 4 46-18q-30-14-46 18z" fill="#86b072"/>',
        "M58 112h84l-10 50q-2 6-8 6h-48q-6 0-8-6z",
        '<path d="M52 102h96q4 0 4 8t-4 8h-96q-4 0-4-8t4-8z" fill="$b"/><path d="M52 118h96" $line stroke="$s" stroke-opacity=".25" stroke-width="2"/>'
        '<path d="M68 128l4 26" $line stroke="#fff" stroke-opacity=".45"/>',
    ),
    "parcel": Drawing(
        '<path d="M34 76l66-32l66 32l-66 30z" fill="$w"/><path d="M100 106l66-30v58l-66 34z" fill="$k" fill-opacity=".35"/>',
        "M34 76l66 30v62l-66-34z",
        '<path d="M100 106l66-30v58l-66 34z" fill="$b" fill-opacity=".7"/><path d="M62 63l66 30v22l14-7V87L76 56z" fill="$a"/>',
    ),
}
