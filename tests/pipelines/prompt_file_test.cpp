#include "pipelines/prompt_file.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/yaml_loader.h"
#include "pipelines/generate_keys.h"
#include "tests/support/temp_folder.h"

namespace strobe::pipelines {
namespace {

std::vector<PromptLine> parse(const std::string& text, const std::string& format) {
  return parse_prompts(text, format, "p." + format, generate_keys());
}

std::string file_refusal(const std::string& text, const std::string& format) {
  return test::message_of<ConfigError>([&] { parse(text, format); });
}

// One clip a line: "text {overrides}", or its message.
std::string shown(const PromptLine& line) {
  if (!line.error.empty()) return line.error;
  return line.overrides.as_map().empty() ? line.text : line.text + " " + config::to_yaml(line.overrides);
}

std::vector<std::string> shown(const std::string& text, const std::string& format) {
  std::vector<std::string> out;
  for (const PromptLine& line : parse(text, format)) out.push_back(shown(line));
  return out;
}

// Of a text with one prompt.
std::string only(const std::string& text, const std::string& format) {
  const std::vector<std::string> all = shown(text, format);
  EXPECT_EQ(all.size(), 1U) << text;
  return all.empty() ? "(no prompt)" : all[0];
}

using Lines = std::vector<std::string>;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(contains, text, part)

TEST(PromptText, is_one_prompt_a_line_without_blank_lines_and_comments) {
  EXPECT_EQ(shown("a cat\n\n  # no\n\t a dog \t\n#\nthe #1 fan\n  \n", "txt"), (Lines{"a cat", "a dog", "the #1 fan"}));
  EXPECT_EQ(shown("\xEF\xBB\xBF"
                  "a cat\r\n\r\n# no\r\na dog --seed 3\r\n",
                  "txt"),
            (Lines{"a cat", "a dog {\"seed\": 3}"}));
  EXPECT_EQ(shown("\xE7\x8C\xAB", "txt"), (Lines{"\xE7\x8C\xAB"}));
}

TEST(PromptText, tells_where_each_prompt_stands) {
  const std::vector<PromptLine> lines = parse("# x\na cat --seed 3\n\nb --sed 1\n", "txt");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].place, "p.txt:2");
  EXPECT_EQ(lines[0].overrides.at("seed").origin(), "p.txt:2:7");
  EXPECT_EQ(lines[0].overrides.at("seed").path(), "seed");
  EXPECT_EQ(lines[1].place, "p.txt:4");
  EXPECT_EQ(lines[1].text, "b");
  EXPECT_TRUE(lines[1].overrides.as_map().empty());
}

TEST(PromptText, reads_flags_behind_the_prompt_as_the_command_line_does) {
  EXPECT_EQ(only("a cat --seed 7 --num-frames 49 --negative-prompt \"two words\"", "txt"),
            "a cat {\"seed\": 7, \"num_frames\": 49, \"negative_prompt\": \"two words\"}");
  EXPECT_EQ(only("a cat --seed=7 --num_frames=49 --steps 20 --cfg-scale\t3.5", "txt"),
            "a cat {\"seed\": 7, \"num_frames\": 49, \"num_inference_steps\": 20, \"guidance_scale\": 3.5}");
  EXPECT_EQ(only("a cat --seed -1", "txt"), "a cat {\"seed\": -1}");
  EXPECT_EQ(only("a cat --size 832x480", "txt"), "a cat {\"height\": 480, \"width\": 832}");
  EXPECT_EQ(only("a cat --output 12 --scheduler euler", "txt"), "a cat {\"output\": \"12\", \"scheduler\": euler}");
  EXPECT_EQ(only("a cat -s 7 -n 'no dogs' -o x.mp4", "txt"),
            "a cat {\"seed\": 7, \"negative_prompt\": \"no dogs\", \"output\": x.mp4}");
}

TEST(PromptText, reads_quotes_in_values_as_a_shell_does) {
  const auto value = [](const std::string& text) {
    const std::vector<PromptLine> lines = parse("a --negative-prompt " + text, "txt");
    return lines[0].error.empty() ? lines[0].overrides.at("negative_prompt").as_string() : lines[0].error;
  };
  EXPECT_EQ(value("\"\""), "");
  EXPECT_EQ(value("''"), "");
  EXPECT_EQ(value("'say \"x\" \\'"), "say \"x\" \\");
  EXPECT_EQ(value(R"("say \"x\" \\ \n")"), R"(say "x" \ \n)");
  EXPECT_EQ(value("two' words'\" here\""), "two words here");
  EXPECT_EQ(value("c:\\x"), "c:\\x");
  EXPECT_EQ(value("\"--seed 3\""), "--seed 3");
  EXPECT_EQ(value("x --seed 3"), "x");
  EXPECT_EQ(only("a --negative-prompt='two words' --seed 3", "txt"),
            "a {\"negative_prompt\": \"two words\", \"seed\": 3}");
  EXPECT_EQ(only("a --negative-prompt= --seed 3", "txt"), "a {\"negative_prompt\": \"\", \"seed\": 3}");
  EXPECT_EQ(value("don't"), "p.txt:1:24: the quote is not closed");
  EXPECT_EQ(value("\"x\\\""), "p.txt:1:21: the quote is not closed");
}

TEST(PromptText, keeps_dashes_that_begin_no_flag) {
  for (const char* text : {"a cat -- and a dog", "a cat --5 below", "a well--seed plant", "a --- b", "a - b -x c",
                           "an A-s shape", "a -s7 b", "ends in -", "ends in --", "reads \"--stop\" twice"}) {
    EXPECT_EQ(only(text, "txt"), text);
  }
}

TEST(PromptText, takes_a_prompt_in_double_quotes_as_it_is) {
  EXPECT_EQ(only("\"a sign: --stop\" --seed 7", "txt"), "a sign: --stop {\"seed\": 7}");
  EXPECT_EQ(only("  \"a sign: --stop\"  ", "txt"), "a sign: --stop");
  EXPECT_EQ(only("\"#1 fan\"", "txt"), "#1 fan");
  EXPECT_EQ(only(R"("\"Hello\" \\ -s 3")", "txt"), R"("Hello" \ -s 3)");
  EXPECT_EQ(only("\"a\"--seed 7", "txt"), "a {\"seed\": 7}");
  EXPECT_EQ(only("\"a\" -s 7", "txt"), "a {\"seed\": 7}");
  EXPECT_EQ(only("\"Hello\" says the cat, \"bye\" --seed 7", "txt"), "\"Hello\" says the cat, \"bye\" {\"seed\": 7}");
  EXPECT_EQ(only("'a' --seed 7", "txt"), "'a' {\"seed\": 7}");
  EXPECT_CONTAINS(only("  \"a cat --seed 7", "txt"), "p.txt:1:3: the quote is not closed; a prompt that begins");
}

TEST(PromptText, names_what_is_wrong_with_a_flag) {
  EXPECT_EQ(only("a cat --sed 7", "txt"), "p.txt:1:7: unknown flag --sed; did you mean --seed?");
  EXPECT_EQ(only("a cat --cfg_scal 7", "txt"), "p.txt:1:7: unknown flag --cfg_scal; did you mean --cfg-scale?");
  EXPECT_CONTAINS(only("a --stop sign", "txt"), "p.txt:1:3: unknown flag --stop; ");
  EXPECT_CONTAINS(only("a --xxxxxxxx", "txt"), "known: --negative-prompt, --num-frames, ");
  EXPECT_CONTAINS(only("a --xxxxxxxx", "txt"), "; a prompt with such a word goes in double quotes");
  EXPECT_CONTAINS(only("a --seed 1 -x", "txt"), "p.txt:1:12: unknown flag -x; known: ");
  EXPECT_LT(only("a --" + std::string(5000, 'x'), "txt").size(), 600U);
  EXPECT_EQ(only("a cat --model wan", "txt"),
            "p.txt:1:7: --model holds for the whole run; give it on the command line or in the run's config file");
  EXPECT_CONTAINS(only("a cat -f x", "txt"), "p.txt:1:7: -f holds for the whole run");
  EXPECT_EQ(only("a cat --prompt b", "txt"), "p.txt:1:7: --prompt: the line itself is the prompt");
  EXPECT_EQ(only("a cat -p b", "txt"), "p.txt:1:7: -p: the line itself is the prompt");
  EXPECT_EQ(only("a cat --seed 1 --seed 2", "txt"), "p.txt:1:16: --seed stands twice");
  EXPECT_EQ(only("a cat --steps 1 --num-inference-steps 2", "txt"),
            "p.txt:1:17: --num-inference-steps is given beside --steps; give one of them");
  EXPECT_EQ(only("a cat --seed", "txt"), "p.txt:1:7: --seed needs a value");
  EXPECT_EQ(only("a cat --seed --fps 3", "txt"), "p.txt:1:7: --seed needs a value");
  EXPECT_EQ(only("a cat --seed -n x", "txt"), "p.txt:1:7: --seed needs a value");
  EXPECT_EQ(only("a --negative-prompt two words --seed 3", "txt"),
            "p.txt:1:25: unexpected 'words' among the flags; a value of several words goes in quotes");
  EXPECT_CONTAINS(only("a --seed 3 -- b", "txt"), "p.txt:1:12: unexpected '--' among the flags");
}

TEST(PromptText, names_what_is_wrong_with_a_value) {
  EXPECT_EQ(only("a cat --seed x", "txt"), "p.txt:1:7: --seed x: expected an integer from -1");
  EXPECT_EQ(only("a cat --seed=", "txt"), "p.txt:1:7: --seed : expected an integer from -1");
  EXPECT_EQ(only("a --fps 1e3", "txt"), "p.txt:1:3: --fps 1000.0: expected an integer from 1 to 240");
  EXPECT_CONTAINS(only("a --seed 99999999999999999999", "txt"), "p.txt:1:3: --seed: the integer 99999999999999999999");
  EXPECT_CONTAINS(only("a --scheduler eule", "txt"), "p.txt:1:3: --scheduler eule: unknown scheduler");
  EXPECT_EQ(only("a --size 832", "txt"),
            "p.txt:1:3: --size: expected WIDTHxHEIGHT such as 832x480, or [frames, height, width], got the text '832'");
  EXPECT_EQ(only("a --width 3 --size 8x8", "txt"), "p.txt:1:13: --size: size is given beside width; give one of them");
}

TEST(PromptText, refuses_a_line_without_prompt) {
  for (const char* text : {"--seed 3", "  -s 3", "\"\"", "\" \t\" --seed 3"}) {
    EXPECT_EQ(only(text, "txt"), "p.txt:1: the prompt is empty") << text;
  }
}

TEST(PromptText, refuses_a_carriage_return_inside_a_line) {
  EXPECT_EQ(only("a cat\ra dog\r", "txt"), "p.txt:1:6: a carriage return inside the line; lines end in \\n or \\r\\n");
}

TEST(PromptText, reads_flags_of_other_tables) {
  const config::KeyTable keys({
      {.name = "prompt", .flags = "-p,--prompt", .is_list = true, .is_per_job = true},
      {.name = "loud", .type = config::KeyType::kBoolean, .flags = "--loud", .is_per_job = true},
      {.name = "lora", .flags = "--lora", .is_list = true, .is_per_job = true},
      {.name = "attention.window", .type = config::KeyType::kInteger, .is_per_job = true},
  });
  const auto read = [&](const std::string& text, const std::string& format) {
    return shown(parse_prompts(text, format, "p", keys).at(0));
  };
  EXPECT_EQ(read("a --loud --lora x --lora 'y z'", "txt"), "a {\"loud\": true, \"lora\": [x, \"y z\"]}");
  EXPECT_EQ(read("a --loud=false", "txt"), "a {\"loud\": false}");
  EXPECT_EQ(read("a --loud=2", "txt"), "p:1:3: --loud 2: expected true or false");
  EXPECT_EQ(read("a --loud true", "txt"),
            "p:1:10: unexpected 'true' among the flags; a value of several words goes in quotes");
  EXPECT_EQ(read("- {prompt: a, attention: {window: 3}}", "yaml"), "a {\"attention.window\": 3}");
  EXPECT_EQ(read("- {prompt: a, attention.window: 3}", "yaml"), "a {\"attention.window\": 3}");
  EXPECT_EQ(read("- {prompt: a, attention: {window_x: 3}}", "yaml"),
            "p:1:37: unknown key 'attention.window_x'; did you mean 'attention.window'?");
  EXPECT_EQ(read("[{\"prompt\": \"a\", \"lora\": [\"x\", \"y\"]}]", "json"), "a {\"lora\": [x, y]}");
  EXPECT_EQ(read("[{\"prompt\": \"a\", \"lora\": [\"x\", 2]}]", "json"),
            "p:1:26: [0].lora[1]: expected text, got the integer 2");
  EXPECT_THROW(parse_prompts("a", "txt", "p", config::KeyTable({})), ShapeError);
}

TEST(PromptJsonl, reads_an_object_a_line) {
  EXPECT_EQ(shown("\xEF\xBB\xBF{\"prompt\": \"a cat\", \"seed\": 7, \"num-frames\": 49}\r\n\r\n"
                  "{\"steps\": 20, \"prompt\": \"a\\ndog\"}\n\"a bird\"\n",
                  "jsonl"),
            (Lines{"a cat {\"seed\": 7, \"num_frames\": 49}", "a\ndog {\"num_inference_steps\": 20}", "a bird"}));
  EXPECT_EQ(only("{\"prompt\": [\"a\"], \"size\": [81, 480, 832], \"seed\": null}", "jsonl"),
            "a {\"num_frames\": 81, \"height\": 480, \"width\": 832}");
  EXPECT_EQ(only("{\"prompt\": \"a\", \"negative_prompt\": \"\", \"output\": \"x\"}", "jsonl"),
            "a {\"negative_prompt\": \"\", \"output\": x}");
}

TEST(PromptJsonl, tells_where_each_value_stands) {
  const std::vector<PromptLine> lines = parse("\n  {\"prompt\": \"a }\\\"\", \"seed\" : 7}\n", "jsonl");
  EXPECT_EQ(lines[0].place, "p.jsonl:2");
  EXPECT_EQ(lines[0].overrides.at("seed").origin(), "p.jsonl:2:32");
}

TEST(PromptJsonl, passes_over_the_byte_order_marks_of_joined_files) {
  const std::string line = "\xEF\xBB\xBF{\"prompt\": \"a\", \"seed\": 1}\n";
  EXPECT_EQ(shown(line + line, "jsonl"), (Lines{"a {\"seed\": 1}", "a {\"seed\": 1}"}));
  EXPECT_EQ(parse(line + line, "jsonl").at(1).overrides.at("seed").origin(), "p.jsonl:2:28");
}

TEST(PromptJsonl, goes_on_behind_a_bad_line) {
  const Lines lines = shown("{\"prompt\": \"a\"}\n{\"prompt\": }\n{\"prompt\": \"b\"", "jsonl");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0], "a");
  EXPECT_CONTAINS(lines[1], "p.jsonl:2:12: ");
  EXPECT_CONTAINS(lines[2], "p.jsonl:3:15: ");
  EXPECT_CONTAINS(only("{\"prompt\": \"a\", \"prompt\": \"b\"}", "jsonl"), "p.jsonl:1: prompt: the key stands twice");
}

TEST(PromptJsonl, names_what_is_wrong_with_a_line) {
  const auto message = [](const std::string& keys) { return only("{\"prompt\": \"a\"" + keys + "}", "jsonl"); };
  EXPECT_EQ(message(", \"sead\": 1"), "p.jsonl:1:25: unknown key 'sead'; did you mean 'seed'?");
  EXPECT_EQ(message(", \"--seed\": 1"), "p.jsonl:1:27: unknown key '--seed'; did you mean 'seed'?");
  EXPECT_EQ(message(", \"model\": \"x\""),
            "p.jsonl:1:26: model holds for the whole run; give it on the command line or in the run's config file");
  EXPECT_EQ(message(", \"seed\": \"7\""), "p.jsonl:1:25: seed: expected an integer from -1, got the text '7'");
  EXPECT_EQ(message(", \"seed\": 7.5"), "p.jsonl:1:25: seed: expected an integer from -1, got the number 7.5");
  EXPECT_EQ(message(", \"steps\": 1, \"num_inference_steps\": 2"),
            "p.jsonl:1:52: num_inference_steps is given beside steps; give one of them");
  EXPECT_EQ(message(", \"width\": 8, \"size\": \"8x8\""),
            "p.jsonl:1:37: size: size is given beside width; give one of them");
  EXPECT_CONTAINS(message(", \"clip\": {\"seed\": 1}"), "p.jsonl:1:25: unknown key 'clip'; known: prompt, ");
  EXPECT_EQ(message(", \"negative_prompt\": \"x\\u0000y\""), "p.jsonl:1:36: negative_prompt: control character 0x00");
  EXPECT_EQ(message(", \"prompt_en\": \"b\""), "p.jsonl:1:30: prompt_en is given beside prompt; give one of them");
  EXPECT_EQ(only("[1]", "jsonl"), "p.jsonl:1:1: expected a prompt or a map with `prompt`, got a list");
  EXPECT_EQ(only(" 3", "jsonl"),
            "p.jsonl:1:2: expected a prompt or a map with `prompt`, got the integer 3; put text "
            "in quotes");
}

TEST(PromptJsonl, wants_exactly_one_prompt_that_says_something) {
  EXPECT_EQ(only("{}", "jsonl"), "p.jsonl:1: the prompt is missing");
  EXPECT_EQ(only("null", "jsonl"), "p.jsonl:1: the prompt is missing");
  EXPECT_EQ(only("{\"prompt\": null}", "jsonl"), "p.jsonl:1: the prompt is missing");
  EXPECT_EQ(only("{\"prompt\": \"\"}", "jsonl"), "p.jsonl:1:12: the prompt is empty");
  EXPECT_EQ(only("{\"prompt\": \" \\t\\r\\n\"}", "jsonl"), "p.jsonl:1:12: the prompt is empty");
  EXPECT_EQ(only("{\"prompt\": []}", "jsonl"), "p.jsonl:1:12: prompt: expected one prompt, got 0");
  EXPECT_EQ(only("{\"prompt\": [\"a\", \"b\"]}", "jsonl"), "p.jsonl:1:12: prompt: expected one prompt, got 2");
  EXPECT_EQ(only("{\"prompt\": 3}", "jsonl"), "p.jsonl:1:12: prompt: expected text, got the integer 3");
  EXPECT_EQ(only("{\"prompt\": \"a\\u0001\"}", "jsonl"), "p.jsonl:1:12: prompt: control character 0x01");
  EXPECT_EQ(only("{\"prompt\": [\"a\\u0001\"]}", "jsonl"), "p.jsonl:1:12: prompt[0]: control character 0x01");
}

TEST(PromptCsv, reads_columns_by_their_names) {
  EXPECT_EQ(
      shown("\xEF\xBB\xBFprompt,seed, num-frames ,negative_prompt\r\na cat, 7 ,,\r\n\r\n\"a, \"\"b\"\"\",,49,no dogs",
            "csv"),
      (Lines{"a cat {\"seed\": 7}", "a, \"b\" {\"num_frames\": 49, \"negative_prompt\": \"no dogs\"}"}));
  EXPECT_EQ(shown("steps,prompt\n20,a\n", "csv"), (Lines{"a {\"num_inference_steps\": 20}"}));
  EXPECT_EQ(shown("prompt\n\"two\r\nlines\"\n12\n", "csv"), (Lines{"two\r\nlines", "12"}));
  EXPECT_EQ(only("size,prompt\n832x480,a", "csv"), "a {\"height\": 480, \"width\": 832}");
}

TEST(PromptCsv, tells_where_each_cell_stands) {
  const std::vector<PromptLine> lines = parse("seed,prompt\n1,\"a\nb\"\n\n,x\n22,c\n", "csv");
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].place, "p.csv:2");
  EXPECT_EQ(lines[1].place, "p.csv:5");
  EXPECT_EQ(lines[2].place, "p.csv:6");
  EXPECT_EQ(lines[2].overrides.at("seed").origin(), "p.csv:6:1");
}

TEST(PromptCsv, refuses_a_header_that_is_none) {
  EXPECT_EQ(file_refusal("seed\n1\n", "csv"), "p.csv:1: no column is named prompt");
  EXPECT_EQ(file_refusal("\nprompt,sead\na,1\n", "csv"), "p.csv:2:8: unknown key 'sead'; did you mean 'seed'?");
  EXPECT_EQ(file_refusal("prompt,model\na,x\n", "csv"),
            "p.csv:1:8: model holds for the whole run; give it on the command line or in the run's config file");
  EXPECT_EQ(file_refusal("prompt,\na,x\n", "csv"), "p.csv:1:8: a column without a name");
  EXPECT_EQ(file_refusal("prompt,-s\na,x\n", "csv"), "p.csv:1:8: unknown key '-s'; did you mean 'seed'?");
  EXPECT_EQ(file_refusal("prompt,steps,num_inference_steps\na,1,1\n", "csv"),
            "p.csv:1:14: a second column for num_inference_steps");
  EXPECT_CONTAINS(file_refusal("pro\"mpt\na\n", "csv"), "p.csv:1:4: a quote in a cell that is not quoted");
  EXPECT_EQ(file_refusal("prompt" + std::string(256, ',') + "\na\n", "csv"),
            "p.csv:1: 257 columns, at most 256 are read");
  EXPECT_EQ(file_refusal("prompt\n\"a\nb\n", "csv"), "p.csv:2:1: the quote is not closed");
}

TEST(PromptCsv, goes_on_behind_a_bad_row) {
  EXPECT_EQ(shown("prompt,seed\na\nb,1,2\nc,x\n,3\n\"d\"e,4\nf\"g,5\nh\ri,6\n\" \",7\nj,8\n", "csv"),
            (Lines{"p.csv:2: expected 2 cells as in the first row, got 1",
                   "p.csv:3: expected 2 cells as in the first row, got 3",
                   "p.csv:4:3: seed: expected an integer from -1, got the text 'x'", "p.csv:5: the prompt is empty",
                   "p.csv:6:4: text behind the closing quote",
                   "p.csv:7:2: a quote in a cell that is not quoted; quote the cell and double the quote",
                   "p.csv:8:2: a carriage return inside the line; lines end in \\n or \\r\\n",
                   "p.csv:9:1: the prompt is empty", "j {\"seed\": 8}"}));
  EXPECT_CONTAINS(only("prompt\na" + std::string(100000, ','), "csv"), "got 100001");
}

TEST(PromptYaml, reads_lists_of_texts_and_maps) {
  const Lines expected = {"a cat", "a dog {\"seed\": 7, \"num_frames\": 49}", "two\nlines\n"};
  const std::string list = "- a cat\n- prompt: a dog\n  seed: 7\n  num-frames: 49\n- |\n  two\n  lines\n";
  EXPECT_EQ(shown(list, "yaml"), expected);
  EXPECT_EQ(shown("prompts:\n" + list, "yaml"), expected);
  EXPECT_EQ(shown("\xEF\xBB\xBFschema: 1\r\nprompts: [a cat]\r\n", "yaml"), (Lines{"a cat"}));
  const std::vector<PromptLine> lines = parse(list, "yaml");
  EXPECT_EQ(lines[0].place, "p.yaml:1:3");
  EXPECT_EQ(lines[1].place, "p.yaml:2:3");
  EXPECT_EQ(lines[1].overrides.at("seed").origin(), "p.yaml:3:9");
}

TEST(PromptYaml, goes_on_behind_a_bad_entry) {
  EXPECT_EQ(
      shown("- 1984\n- [a]\n- {sead: 1, prompt: a}\n- ''\n-\n- prompt_en: b\n  x: 1\n- {prompt: c, fps: 0}\n- ok\n",
            "yaml"),
      (Lines{"p.yaml:1:3: expected a prompt or a map with `prompt`, got the integer 1984; put text in quotes",
             "p.yaml:2:3: expected a prompt or a map with `prompt`, got a list",
             "p.yaml:3:10: unknown key 'sead'; did you mean 'seed'?", "p.yaml:4:3: the prompt is empty",
             "p.yaml:6:1: the prompt is missing", "b",
             "p.yaml:8:20: fps: expected an integer from 1 to 240, got the integer 0", "ok"}));
  EXPECT_EQ(only("- \"a\\x04\"", "yaml"), "p.yaml:1:3: prompt: control character 0x04");
}

TEST(PromptYaml, refuses_a_file_of_another_form) {
  const std::string expected = "expected a list of prompts, or a map with the list as `prompts`";
  EXPECT_EQ(file_refusal("a cat\n", "yaml"), "p.yaml:1:1: " + expected + ", got text");
  EXPECT_EQ(file_refusal("3\n", "yaml"), "p.yaml:1:1: " + expected + ", got the integer 3");
  EXPECT_EQ(file_refusal("schema: 1\n", "yaml"), "p.yaml: " + expected);
  EXPECT_EQ(file_refusal("prompt: a\n", "yaml"), "p.yaml:1:9: unknown key 'prompt'; " + expected);
  EXPECT_EQ(file_refusal("prompts: a\n", "yaml"), "p.yaml:1:10: prompts: expected a list");
  EXPECT_EQ(file_refusal("schema: 2\nprompts: [a]\n", "yaml"),
            "p.yaml:1:9: schema: expected 1, what this build reads, got the integer 2");
  EXPECT_EQ(file_refusal("schema: x\nprompts: [a]\n", "yaml"),
            "p.yaml:1:9: schema: expected 1, what this build reads, got the text 'x'");
  EXPECT_CONTAINS(file_refusal("- a\n- 'b\n", "yaml"), "p.yaml:2:3: ");
  EXPECT_LT(file_refusal(std::string(100000, 'x'), "yaml").size(), 300U);
}

TEST(PromptJson, reads_texts_and_objects) {
  const std::string list = "[\n \"a cat\",\n {\"prompt\": \"a dog\", \"seed\": 7}\n]";
  EXPECT_EQ(shown(list, "json"), (Lines{"a cat", "a dog {\"seed\": 7}"}));
  EXPECT_EQ(shown("{\"schema\": 1, \"prompts\": " + list + "}", "json"), (Lines{"a cat", "a dog {\"seed\": 7}"}));
  const std::vector<PromptLine> lines = parse(list, "json");
  EXPECT_EQ(lines[0].place, "p.json:2:2");
  EXPECT_EQ(lines[1].place, "p.json:3:2");
  EXPECT_EQ(lines[1].overrides.at("seed").origin(), "p.json:3:30");
}

TEST(PromptJson, reads_the_info_file_of_vbench) {
  EXPECT_EQ(shown(R"([{"prompt_en": "a person swimming", "dimension": ["human_action"]},
                      {"prompt_en": "a car", "dimension": ["color", "scene"], "seed": 5,
                       "auxiliary_info": {"color": {"color": "red, \"[{"}}}])",
                  "json"),
            (Lines{"a person swimming", "a car {\"seed\": 5}"}));
  EXPECT_EQ(
      only(R"([{"prompt": "a", "dimension": []}])", "json"), "p.json:1:31: unknown key 'dimension'; known: " + [] {
        std::string names;
        for (const std::string& name : generate_keys().names()) names += (names.empty() ? "" : ", ") + name;
        return names;
      }());
  EXPECT_EQ(only(R"([{"prompt_en": 3}])", "json"), "p.json:1:16: prompt_en: expected text, got the integer 3");
  EXPECT_EQ(only(R"([{"prompt_en": ""}])", "json"), "p.json:1:16: the prompt is empty");
}

TEST(PromptJson, refuses_a_file_of_another_form) {
  EXPECT_CONTAINS(file_refusal("[\"a\",\n]", "json"), "p.json:2:1: ");
  EXPECT_CONTAINS(file_refusal("[{\"a\": 1, \"a\": 2}]", "json"), "p.json: [0].a: the key stands twice");
  EXPECT_CONTAINS(file_refusal(" \"a\"", "json"), "p.json:1:2: expected a list of prompts, or a map");
  EXPECT_CONTAINS(file_refusal("{\"prompts\": 3}", "json"), "p.json:1:13: prompts: expected a list");
  EXPECT_NE(file_refusal(std::string(100000, '['), "json"), "(no error)");
}

TEST(PromptFile, refuses_a_file_without_prompts) {
  for (const char* format : {"txt", "jsonl", "csv", "yaml", "json"}) {
    for (const char* text : {"", "\n \n", "\xEF\xBB\xBF"}) {
      if (std::string(format) == "csv" && std::string(text) == "\n \n") continue;
      EXPECT_EQ(file_refusal(text, format), fmt::format("p.{0}: holds no prompt", format)) << text;
    }
  }
  EXPECT_EQ(file_refusal("# a\n", "txt"), "p.txt: holds no prompt");
  EXPECT_EQ(file_refusal("prompt,seed\n", "csv"), "p.csv: holds no prompt");
  EXPECT_EQ(file_refusal("[]", "json"), "p.json: holds no prompt");
  EXPECT_EQ(file_refusal("prompts: []", "yaml"), "p.yaml: holds no prompt");
}

TEST(PromptFile, refuses_what_is_no_text) {
  for (const char* format : {"txt", "jsonl", "csv", "yaml", "json"}) {
    const std::string file = std::string("p.") + format;
    EXPECT_EQ(file_refusal("a\nb\xFFx\n", format), file + ":2:2: byte 0xff is not UTF-8");
    EXPECT_EQ(file_refusal(std::string("a\nbc\0d", 6), format), file + ":2:3: control character 0x00");
    EXPECT_EQ(file_refusal("\xFF\xFE"
                           "a",
                           format),
              file + ":1:1: the file is UTF-16; save it as UTF-8");
  }
}

TEST(PromptFile, is_read_by_its_ending) {
  const test::TempFolder folder;
  const auto load = [&](const std::string& name, const std::string& text) {
    return shown(load_prompt_file(folder.write(name, text), generate_keys()).at(0));
  };
  EXPECT_EQ(load("a.txt", "a"), "a");
  EXPECT_EQ(load("a.TXT", "a"), "a");
  EXPECT_EQ(load("a.jsonl", "{\"prompt\": \"a\"}"), "a");
  EXPECT_EQ(load("a.csv", "prompt\na"), "a");
  EXPECT_EQ(load("a.yaml", "- a"), "a");
  EXPECT_EQ(load("a.yml", "- a"), "a");
  EXPECT_EQ(load("a.json", "[\"a\"]"), "a");
}

TEST(PromptFile, names_the_file_that_cannot_be_read) {
  const test::TempFolder folder;
  const auto message = [](const std::filesystem::path& path) {
    return test::message_of<ConfigError>([&] { load_prompt_file(path, generate_keys()); });
  };
  const std::string kinds = ": expected a prompt file that ends in .txt, .jsonl, .csv, .yaml, .yml or .json";
  EXPECT_EQ(message(folder.write("a.md", "a")), (folder / "a.md").string() + kinds);
  EXPECT_EQ(message(folder.write("a", "a")), (folder / "a").string() + kinds);
  EXPECT_EQ(message(folder / "none.txt"), (folder / "none.txt").string() + ": no such file");
  EXPECT_EQ(message(folder / "none.md"), (folder / "none.md").string() + ": no such file");
  EXPECT_EQ(message(folder.path()), folder.path().string() + ": is a folder, expected a file");
  EXPECT_EQ(message(folder.write("empty.txt", "")), (folder / "empty.txt").string() + ": holds no prompt");
  EXPECT_EQ(file_refusal("a", "md"), "p.md" + kinds);
  const std::filesystem::path big = folder.write("big.txt", "");
  std::filesystem::resize_file(big, (uintmax_t{64} << 20) + 1);
  EXPECT_EQ(message(big), big.string() + ": more than 67108864 bytes, the limit for such files");
}

TEST(PromptFile, limits_the_number_of_prompts) {
  std::string text;
  for (int i = 0; i < 1000001; ++i) text += "a\n";
  EXPECT_EQ(file_refusal(text, "txt"), "p.txt: more than 1000000 prompts; split the file");
}

TEST(PromptFile, reads_long_lines_in_one_pass) {
  // A quadratic pass over these would run into the program's time limit.
  const size_t size = size_t{4} << 20;
  std::string dashes, flags = "a";
  for (size_t i = 0; i < size / 4; ++i) dashes += "-s- ";
  for (size_t i = 0; i < size / 4; ++i) flags += " --a";
  EXPECT_EQ(parse(dashes, "txt").at(0).text.size(), dashes.size() - 1);
  EXPECT_LT(only(flags, "txt").size(), 900U);
  EXPECT_LT(only("a --seed " + std::string(size, 'x'), "txt").size(), 900U);
  EXPECT_LT(only("a --seed '" + std::string(size, 'x'), "txt").size(), 900U);
  EXPECT_LT(only("{\"prompt\": \"a\", \"" + std::string(size, 'x') + "\": 1}", "jsonl").size(), 900U);
  EXPECT_LT(only("{\"prompt\": \"a\", \"seed\": \"" + std::string(size, 'x') + "\"}", "jsonl").size(), 900U);
  EXPECT_LT(only("prompt,seed\na," + std::string(size, 'x'), "csv").size(), 900U);
  EXPECT_LT(file_refusal("prompt," + std::string(size, 'x'), "csv").size(), 900U);
}

}  // namespace
}  // namespace strobe::pipelines
