// completion: shell completion and the manual page, from the tree of commands and flags itself.
#include <cstdio>

#include "mtcki/cli/commands.h"
#include "mtcki/host/build_info.h"

namespace mtcki::cli {

namespace {

using Visit = std::function<void(const CLI::App& app, const std::string& path)>;

// path: "" of mtcki itself, "profile diff".
void walk(const CLI::App& app, const std::string& path, const Visit& visit) {
  visit(app, path);
  for (const CLI::App* s : app.get_subcommands({}))
    walk(*s, path + (path.empty() ? "" : " ") + s->get_name(), visit);
}

std::vector<std::string> flags_of(const CLI::Option& o) {
  std::vector<std::string> out;
  for (const std::string& name : o.get_snames()) out.push_back("-" + name);
  for (const std::string& name : o.get_lnames()) out.push_back("--" + name);
  return out;
}

bool takes_value(const CLI::Option& o) { return o.get_items_expected_max() > 0; }

std::string bash(const CLI::App& root) {
  std::string paths, words, values;
  walk(root, "", [&](const CLI::App& app, const std::string& path) {
    const std::string quoted = "\"" + path + "\"";
    if (!path.empty()) paths += (paths.empty() ? "" : "|") + quoted;
    words += "    " + quoted + ") words=\"";
    for (const CLI::App* s : app.get_subcommands({})) words += s->get_name() + " ";
    for (const CLI::Option* o : app.get_options())
      for (const std::string& flag : flags_of(*o)) {
        words += flag + " ";
        if (takes_value(*o)) values += "|" + flag;
      }
    words += "\" ;;\n";
  });
  return "# Completion of mtcki for bash: source <(mtcki completion bash)\n"
         "_mtcki() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} path= word words=\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"${path:+$path }$word\" in\n"
         "    " +
         paths +
         ") path=\"${path:+$path }$word\" ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"${COMP_WORDS[COMP_CWORD-1]}\" in\n"
         "    " +
         values.substr(1) +
         ") ;;\n"
         "    *) case \"$path\" in\n" +
         words +
         "    esac ;;\n"
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _mtcki mtcki\n";  // default: names of files
}

std::string fish_text(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return out + "'";
}

std::string fish(const CLI::App& root) {
  std::string out = "# Completion of mtcki for fish: mtcki completion fish | source\n";
  walk(root, "", [&](const CLI::App& app, const std::string& path) {
    std::string names;
    for (const CLI::App* s : app.get_subcommands({})) names += " " + s->get_name();
    std::string here = path.empty() ? "" : "__fish_seen_subcommand_from " + app.get_name();
    const std::string first = "not __fish_seen_subcommand_from" + names;
    for (const CLI::App* s : app.get_subcommands({}))
      out += "complete -c mtcki -n '" + (here.empty() ? "" : here + "; and ") + first + "' -a " +
             s->get_name() + " -d " + fish_text(s->get_description()) + "\n";
    for (const CLI::Option* o : app.get_options()) {
      if (o->get_positional()) continue;
      out += "complete -c mtcki" + (here.empty() ? "" : " -n '" + here + "'");
      for (const std::string& name : o->get_snames()) out += " -s " + name;
      for (const std::string& name : o->get_lnames()) out += " -l " + name;
      out += (takes_value(*o) ? " -r" : "") + (" -d " + fish_text(o->get_description())) + "\n";
    }
  });
  return out;
}

// For troff: a dot or an apostrophe at the beginning of a line, and backslashes, mean something.
std::string roff(const std::string& text) {
  std::string out;
  bool begins = true;
  for (const char c : text) {
    if (begins && (c == '.' || c == '\'')) out += "\\&";
    out += c == '\\' ? "\\e" : c == '-' ? "\\-" : std::string{c};
    begins = c == '\n';
  }
  return out;
}

std::string man(const CLI::App& root) {
  std::string out = ".TH MTCKI 1 \"\" \"mtcki " + build_info().version +
                    "\"\n.SH NAME\nmtcki \\- " +
                    "trains classifiers, inverts them into images, teaches students from these\n" +
                    ".SH SYNOPSIS\n.B mtcki\n.I COMMAND\n[FLAGS]\n.SH DESCRIPTION\n" +
                    roff(root.get_description()) + "\n";
  walk(root, "", [&](const CLI::App& app, const std::string& path) {
    if (path.empty()) {
      out += ".SH FLAGS OF EVERY COMMAND\n";
    } else {
      out += ".SH " + roff("MTCKI " + path) + "\n" + roff(app.get_description()) + "\n";
    }
    for (const CLI::Option* o : app.get_options()) {
      std::string names;
      for (const std::string& flag : flags_of(*o)) names += (names.empty() ? "" : ", ") + flag;
      if (o->get_positional()) names = o->get_name(true);
      if (!path.empty() && names == "-h, --help") continue;
      out +=
          ".TP\n.B " + roff(names) + (takes_value(*o) && !o->get_positional() ? " VALUE" : "") +
          "\n" + roff(o->get_description()) +
          (o->get_default_str().empty() ? "" : roff(" (default: " + o->get_default_str() + ")")) +
          "\n";
    }
    if (!app.get_footer().empty()) out += ".PP\n.nf\n" + roff(app.get_footer()) + "\n.fi\n";
  });
  return out;
}

}  // namespace

void add_completion(CommandLine* line) {
  const CLI::App* root = line->app;
  CLI::App* completion = line->app->add_subcommand(
      "completion", "shell completion, e.g. source <(mtcki completion bash); the manual page");
  completion->require_subcommand(1);
  struct Row {
    const char *name, *what;
    std::string (*text)(const CLI::App&);
  };
  for (const Row& row :
       {Row{"bash", "source <(mtcki completion bash), in ~/.bashrc", bash},
        Row{"zsh", "source <(mtcki completion zsh), in ~/.zshrc",
            [](const CLI::App& app) {
              return "autoload -U +X compinit && compinit\n"
                     "autoload -U +X bashcompinit && bashcompinit\n" +
                     bash(app);
            }},
        Row{"fish", "mtcki completion fish | source, in ~/.config/fish/config.fish", fish},
        Row{"man", "the manual page, e.g. mtcki completion man | man -l -", man}})
    line->commands.push_back({completion->add_subcommand(row.name, row.what), [root, row] {
                                std::fputs(row.text(*root).c_str(), stdout);
                                return 0;
                              }});
}

}  // namespace mtcki::cli
