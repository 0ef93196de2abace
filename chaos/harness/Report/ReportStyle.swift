// The look of report.html.

enum ReportStyle {
  static let css = """
    :root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--ink:#1d2126;--soft:#5b6470;--line:#dfe3e8;
    --good:#157347;--goodsoft:#d9f0e3;--bad:#b3261e;--badsoft:#fbe3e1;--warn:#8a5a00;--warnsoft:#fdf0d5;
    --blue:#2563c9;--teal:#0f8b8d;--band:rgba(179,38,30,.13);--bandline:#c4574f;
    --n1:#2563c9;--n2:#c2620a;--n3:#0f8b8d;--n4:#8348b5;--n5:#b03060;--n6:#5f7a12}
    @media(prefers-color-scheme:dark){:root{--page:#14171b;--card:#1c2026;--ink:#e7eaee;--soft:#9aa4b1;
    --line:#323942;--good:#6fd6a0;--goodsoft:#173527;--bad:#ff9c93;--badsoft:#43201e;--warn:#f2c46d;
    --warnsoft:#3a2d13;--blue:#7fb0ff;--teal:#52cfcf;--band:rgba(255,140,130,.16);--bandline:#e5877f;
    --n1:#7fb0ff;--n2:#f2a65a;--n3:#52cfcf;--n4:#c79bf0;--n5:#f08bb0;--n6:#b5cf5f}}
    *{box-sizing:border-box}
    body{margin:0;background:var(--page);color:var(--ink);
    font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
    main{max-width:1080px;margin:0 auto;padding:24px 20px 48px}
    h1{font-size:2rem;line-height:1.2;margin:.2em 0}
    h2{font-size:1.2rem;margin:0 0 .5em}
    p{margin:.4em 0}
    .lead{font-size:1.1rem;max-width:60ch}
    code,pre{font:.85rem/1.45 ui-monospace,"SF Mono",Menlo,"DejaVu Sans Mono",monospace}
    header code{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.3em .6em;
    display:inline-block;overflow-wrap:anywhere}
    .badge{display:inline-block;margin:0;padding:.15em .9em;border-radius:99px;font-weight:600}
    .badge.valid{color:var(--good);background:var(--goodsoft)}
    .badge.violated{color:var(--bad);background:var(--badsoft)}
    .badge.incomplete{color:var(--warn);background:var(--warnsoft)}
    .trouble{color:var(--warn);background:var(--warnsoft);border-radius:6px;padding:.5em .8em}
    section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
    margin:18px 0}
    .tiles{list-style:none;margin:20px 0;padding:0;display:grid;gap:12px;
    grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
    .tiles li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
    .tiles b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
    .tiles span{display:block}
    .tiles small,footer,.key{color:var(--soft);font-size:.85rem}
    .scroll{overflow-x:auto}
    table{border-collapse:collapse;width:100%;font-size:.92rem}
    th{text-align:left;font-weight:500;color:var(--soft)}
    th,td{padding:.35em .8em .35em 0;border-bottom:1px solid var(--line);vertical-align:top}
    tbody tr:last-child td{border-bottom:0}
    .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
    .good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
    .bar{width:45%;padding-right:0}.bar i{display:block;height:.8em;margin-top:.35em;border-radius:3px;
    background:var(--blue)}
    details{margin-top:.8em}summary{cursor:pointer;font-weight:600}
    pre{overflow-x:auto;background:var(--page);border:1px solid var(--line);border-radius:6px;padding:.7em;
    margin:.5em 0 0}
    svg{display:block;width:100%;height:auto}
    svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--soft)}
    svg .title{fill:var(--ink);font-weight:600}
    .grid{stroke:var(--line);stroke-width:1}
    .fault{fill:var(--band)}.faultedge{stroke:var(--bandline);stroke-width:1}
    .l{fill:none;stroke-width:1.6;stroke-linejoin:round}
    .lconfirmed{stroke:var(--blue)}.ldelivered{stroke:var(--teal);stroke-dasharray:3 2}
    .lmedian{stroke:var(--n4)}.lhigh{stroke:var(--n2)}
    .column{fill:var(--blue)}
    .node1{fill:var(--n1)}.node2{fill:var(--n2)}.node3{fill:var(--n3)}.node4{fill:var(--n4)}
    .node5{fill:var(--n5)}.node0{fill:var(--n6)}
    svg .onnode{fill:var(--card);font-weight:600}
    .key i{display:inline-block;width:1.3em;height:.2em;vertical-align:middle;margin:0 .3em 0 0}
    .key span{white-space:nowrap;margin-right:.8em}
    .key .confirmed{background:var(--blue)}.key .delivered{background:var(--teal)}
    .key .median{background:var(--n4)}.key .high{background:var(--n2)}
    .key .band{background:var(--band);height:.9em;border:1px solid var(--bandline)}
    .narrow{display:none}
    @media(max-width:640px){main{padding:16px 12px 32px}section{padding:14px 12px}
    .wide{display:none}.narrow{display:block}.tiles{grid-template-columns:1fr 1fr}h1{font-size:1.6rem}
    .bar{width:25%}}
    """
}
