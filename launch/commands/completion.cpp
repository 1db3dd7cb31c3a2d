// SPDX-License-Identifier: Apache-2.0
// `lockstep completion bash`: what the shell offers behind `lockstep`, from the commands' own options.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "launch/commands/command.h"
#include "launch/fetch/catalog.h"
#include "launch/job/keys.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command completion_command;

namespace {

std::string words_of_command(const Command& command) {
  std::vector<std::string> words = {"--help"};
  command.run({{}, [&](const Usage& usage) {
                 for (const auto& option : usage.visible.options())
                   words.push_back("--" + option->long_name());
               }});
  return fmt::format("{}", fmt::join(words, " "));
}

// Options whose value is of one kind ("FILE"), as a pattern of `case`.
std::string options_that_take(const std::string& value) {
  std::vector<std::string> found;
  for (const Command& command : commands())
    command.run({{}, [&](const Usage& usage) {
                   for (const auto& option : usage.visible.options())
                     if (option->format_parameter() == value)
                       if (const std::string word = "--" + option->long_name();
                           std::ranges::find(found, word) == found.end())
                         found.push_back(word);
                 }});
  return fmt::format("{}", fmt::join(found, " | "));
}

// `key=` for each key of a job, and `key=value` where there are a few values to choose from.
std::string job_key_words() {
  std::vector<std::string> words;
  const auto add = [&](const std::string& prefix, const job::Table& table, void* defaults) {
    for (const job::Key& key : table) {
      words.push_back(prefix + key.path + "=");
      std::vector<std::string> values = key.choices;
      if (std::holds_alternative<bool*>(key.slot(defaults))) values = {"true", "false"};
      for (const std::string& value : values) words.push_back(prefix + key.path + "=" + value);
    }
  };
  Job defaults;
  DatasetConfig dataset;
  UNet2DConfig unet;
  add("", job::job_keys(), &defaults);
  add("inputs.training.", job::training_keys(), &dataset);
  add("inputs.validation.", job::dataset_keys(), &dataset);
  add("inputs.test.", job::dataset_keys(), &dataset);
  add("model.config.", job::unet_keys(), &unet);
  UNet2DConditionConfig unet_condition;
  ClipTextConfig text_encoder;
  add("model.unet.", job::unet_condition_keys(), &unet_condition);
  add("model.text_encoder.", job::clip_text_keys(), &text_encoder);
  return fmt::format("{}", fmt::join(words, " "));
}

std::string bash() {
  std::vector<std::string> names, sets;
  std::string options;
  for (const Command& command : commands()) {
    names.emplace_back(command.name);
    options += fmt::format("    {}) words=\"{}\" ;;\n", command.name, words_of_command(command));
  }
  for (const RemoteSet& set : remote_sets()) sets.push_back(set.name);
  return fmt::format(
      R"sh(# Completion of lockstep for bash. Made by `lockstep completion bash`.
_lockstep() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command=${{COMP_WORDS[1]}} words
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "{names} --help --version" -- "$current")
    return
  fi
  # bash may cut KEY=VALUE at the equals sign; here it is one word again, and what stands before it is taken off the
  # offers at the end.
  local setting='' before=''
  if [ "$previous" = --set ]; then
    setting=$current
  elif [ "$COMP_CWORD" -ge 4 ] && [ "${{COMP_WORDS[COMP_CWORD - 2]}}" = --set ] && [ "$current" = = ]; then
    setting=$previous= before=$previous=
  elif [ "$COMP_CWORD" -ge 5 ] && [ "${{COMP_WORDS[COMP_CWORD - 3]}}" = --set ] && [ "$previous" = = ]; then
    setting=${{COMP_WORDS[COMP_CWORD - 2]}}=$current before=${{COMP_WORDS[COMP_CWORD - 2]}}=
    previous=--set
  fi
  if [ -n "$setting" ] || [ "$previous" = --set ]; then
    words="{keys}"
    # Values only behind their key.
    case $setting in
      *=*) ;;
      *) words=$(printf '%s\n' $words | grep '=$') ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$setting")
    COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
    compopt -o nospace
    return
  fi
  case $previous in
    {files})
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    {folders})
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -d -- "$current")
      return
      ;;
  esac
  case $command in
{options}    *) return ;;
  esac
  case $current in
    -*)
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
      return
      ;;
  esac
  case $command in
    data)
      if [ "$COMP_CWORD" -eq 2 ]; then
        words="get make"
      elif [ "${{COMP_WORDS[2]}}" = make ]; then
        words=captioned_digits
      else
        words="{sets}"
      fi
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
      ;;
    sagemaker | bench)
      mapfile -t COMPREPLY < <(compgen -W serve -- "$current")
      ;;
    completion)
      mapfile -t COMPREPLY < <(compgen -W bash -- "$current")
      ;;
    *)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      ;;
  esac
}}
complete -F _lockstep lockstep
)sh",
      fmt::arg("names", fmt::join(names, " ")), fmt::arg("keys", job_key_words()),
      fmt::arg("files", options_that_take("FILE")),
      fmt::arg("folders", options_that_take("DIR") + " | " + options_that_take("RUN2")),
      fmt::arg("options", options), fmt::arg("sets", fmt::join(sets, " ")));
}

int run_completion(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string shell;
  po::options_description visible("Options"), hidden;
  hidden.add_options()("shell", po::value(&shell));
  po::positional_options_description positional;
  positional.add("shell", 1);
  if (!parse_arguments(completion_command,
                       {"bash", "source <(lockstep completion bash)", visible, hidden, positional},
                       arguments))
    return 0;
  if (shell.empty()) missing_argument(completion_command, "the shell: bash");
  if (shell != "bash")
    throw Error(Exit::usage, "E_OPTION", fmt::format("completion: there is one for bash, found '{}'", shell));
  print_out("{}", bash());
  return 0;
}

}  // namespace

const Command completion_command{"completion", "print the completion script of a shell: bash",
                                 run_completion};

}  // namespace lockstep
