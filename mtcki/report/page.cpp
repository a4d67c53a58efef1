#include "mtcki/report/page.h"

#include <fmt/format.h>

#include "mtcki/report/chart.h"

namespace mtcki {

namespace {

// Okabe and Ito's colours; on a dark ground black becomes white.
const char kStyle[] = R"(
:root{--bg:#fff;--fg:#1b1f24;--soft:#5b6470;--line:#d8dde3;--card:#f6f8fa;--good:#007a5a;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#9aa4b0;--line:#343b44;--card:#1c2127;--good:#3fcf9f;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1160px;padding:24px 20px 60px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
h1{margin:0 0 4px;font-size:26px}h2{margin:36px 0 10px;font-size:19px;border-bottom:1px solid var(--line);padding-bottom:4px}h3{margin:18px 0 6px;font-size:15px}
.soft,small{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
table{border-collapse:collapse;margin:8px 0;align-self:start;font-variant-numeric:tabular-nums}th,td{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right}
.grid2{display:grid;grid-template-columns:repeat(auto-fill,minmax(360px,1fr));gap:14px}figure{margin:0;padding:10px 12px;background:var(--card);border:1px solid var(--line);border-radius:8px}
figcaption{font-weight:600;font-size:14px;margin-bottom:4px}svg{width:100%;height:auto;display:block}.grid{stroke:var(--line);stroke-width:1}.tick{fill:var(--soft);font-size:15px;font-family:system-ui,sans-serif}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}.level{stroke-dasharray:6 4}.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:12.5px;color:var(--soft)}.key b{color:var(--fg);font-weight:600}.key i{display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle}
.line.s0{stroke:#0072b2}.line.s1{stroke:#e69f00}.line.s2{stroke:#009e73}.line.s3{stroke:#cc79a7}.line.s4{stroke:#56b4e9}.line.s5{stroke:#d55e00}.line.s6{stroke:#b8a800}.line.s7{stroke:var(--fg)}
.dot.s0,i.s0{fill:#0072b2;background:#0072b2}.dot.s1,i.s1{fill:#e69f00;background:#e69f00}.dot.s2,i.s2{fill:#009e73;background:#009e73}.dot.s3,i.s3{fill:#cc79a7;background:#cc79a7}.dot.s4,i.s4{fill:#56b4e9;background:#56b4e9}.dot.s5,i.s5{fill:#d55e00;background:#d55e00}.dot.s6,i.s6{fill:#b8a800;background:#b8a800}.dot.s7,i.s7{fill:var(--fg);background:var(--fg)}
img{max-width:100%;image-rendering:pixelated;border-radius:4px;display:block}
.cm td,.cm th{border:0;padding:3px 4px;text-align:center;vertical-align:middle;font-size:12.5px}.cm th{font-weight:400;text-align:right}.cm th[scope=col]{vertical-align:bottom;padding:4px 2px}.cm th span{writing-mode:vertical-rl;transform:rotate(180deg)}
.cm td.d{background:rgba(0,114,178,var(--a))}.cm td.x{background:rgba(213,94,0,var(--a))}.cm td.h{color:#fff}.wide{overflow-x:auto}.cm img{width:100%}
.nn{display:flex;gap:10px}.nn div{flex:1;min-width:0}.nn img{width:100%}.nn div:first-child{border-right:1px solid var(--line);padding-right:10px}.nn small{display:block;line-height:1.3;margin-top:3px;overflow-wrap:anywhere}figure.shot img{width:100%}pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow:auto;font-size:12.5px}details{margin:8px 0}summary{cursor:pointer;font-weight:600}
)";

}  // namespace

std::string html_page(const std::string& title, const std::string& body, int64_t refresh_seconds) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n";
  if (refresh_seconds > 0)
    out += fmt::format("<meta http-equiv=\"refresh\" content=\"{}\">\n", refresh_seconds);
  return out + "<title>" + html_escape(title) + " – mtcki</title>\n<style>" + kStyle +
         "</style>\n</head>\n<body>\n<h1>" + html_escape(title) + "</h1>\n" + body +
         "</body>\n</html>\n";
}

}  // namespace mtcki
