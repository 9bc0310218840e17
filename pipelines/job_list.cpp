#include "pipelines/job_list.h"

#include <charconv>
#include <random>

#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "core/output_file.h"
#include "pipelines/generate_keys.h"
#include "pipelines/output_names.h"
#include "pipelines/prompt_file.h"

namespace strobe::pipelines {
namespace {

struct Shard {
  int64_t index = 0, count = 1;
};

Shard parse_shard(const ConfigNode& effective) {
  const ConfigNode* node = effective.find("shard");
  if (!node) return {};
  const std::string& text = node->as_string();
  const size_t slash = text.find('/');
  Shard shard;
  if (slash != std::string::npos) {
    const char *begin = text.data(), *middle = begin + slash, *end = begin + text.size();
    const auto first = std::from_chars(begin, middle, shard.index),
               second = std::from_chars(middle + 1, end, shard.count);
    if (first.ec == std::errc() && first.ptr == middle && second.ec == std::errc() && second.ptr == end &&
        shard.index >= 0 && shard.index < shard.count) {
      return shard;
    }
  }
  node->fail(fmt::format("expected i/n such as 0/4, with i from 0 to n-1, got '{}'", text));
}

std::vector<PromptLine> read_prompts(const ConfigNode& effective) {
  const ConfigNode* typed = effective.find("prompt");
  const ConfigNode* file = effective.find("prompt_file");
  if (typed && file) {
    file->fail(fmt::format("prompts are also given by {}; give one of them", typed->origin()));
  }
  if (file) return load_prompt_file(file->as_string(), generate_keys());
  std::vector<PromptLine> lines;
  if (typed) {
    for (const ConfigNode& text : typed->as_list()) {
      lines.push_back(
          {.text = text.as_string(), .overrides = ConfigNode::map(), .place = typed->origin(), .error = {}});
    }
  }
  if (lines.empty()) throw ConfigError("no prompt: give --prompt or --prompt-file");
  return lines;
}

// The settings of one clip.
ConfigNode settings_of(const ConfigNode& effective, const PromptLine& line) {
  ConfigNode settings = ConfigNode::map();
  for (const auto& [name, value] : effective.as_map()) {
    if (name != "prompt") settings.set(name, value);
  }
  config::overlay(settings, line.overrides);
  ConfigNode text = ConfigNode::string(line.text);
  text.set_place(line.place, "prompt");
  ConfigNode list = ConfigNode::list({text});
  list.set_place(line.place, "prompt");
  settings.set("prompt", std::move(list));
  return settings;
}

class Lister {
 public:
  Lister(const ConfigNode& effective, const std::string& model_name) : effective_(effective), model_name_(model_name) {}

  std::vector<JobSpec> run() {
    const std::vector<PromptLine> lines = read_prompts(effective_);
    const int64_t start = effective_.get_integer("start", 0), videos = effective_.get_integer("num_videos", 1);
    const auto all = static_cast<int64_t>(lines.size());
    if (start >= all) {
      effective_.at("start").fail(fmt::format("expected less than the {} prompts that there are, got {}", all, start));
    }
    const int64_t end = std::min(all, start + effective_.get_integer("limit", all));
    const Shard shard = parse_shard(effective_);
    clips_ = all * videos;
    for (int64_t i = start; i < end; ++i) {
      if ((i - start) % shard.count != shard.index) continue;
      add_clips(lines[static_cast<size_t>(i)], i * videos, videos);
    }
    refuse_shared_names();
    return std::move(jobs_);
  }

 private:
  void add_clips(const PromptLine& line, int64_t first_index, int64_t videos) {
    JobSpec spec{
        .index = first_index, .effective = settings_of(effective_, line), .place = line.place, .error = line.error};
    if (!line.error.empty()) {
      jobs_.push_back(std::move(spec));
      return;
    }
    int64_t seed = spec.effective.get_integer("seed", 0);
    spec.is_seed_drawn = seed == -1;
    if (spec.is_seed_drawn) seed = static_cast<int64_t>(std::random_device{}() & 0x7fffffffU);
    const std::string origin = spec.effective.at("seed").origin();
    for (int64_t k = 0; k < videos; ++k) {
      JobSpec one = spec;
      one.index = first_index + k;
      ConfigNode drawn = ConfigNode::integer(seed + k);
      drawn.set_place(spec.is_seed_drawn ? origin + ", drawn" : origin, "seed");
      one.effective.set("seed", std::move(drawn));
      try {
        one.request = to_request(one.effective);
        name_outputs(one);
      } catch (const ConfigError& error) {
        one.error = line.overrides.as_map().empty() ? error.what() : fmt::format("{}: {}", line.place, error.what());
      }
      jobs_.push_back(std::move(one));
    }
  }

  void name_outputs(JobSpec& job) const {
    const NameFields fields{.index = job.index,
                            .slug = slug(job.request.prompt),
                            .seed = job.request.seed,
                            .method = attention_methods_text(job.request),
                            .density = asked_density(job.request),
                            .model = model_name_,
                            .ext = job.request.is_lossless ? "mkv" : "mp4"};
    set_name(job, job.request.output, output_name(job.request.output.string(), fields, clips_));
    set_name(job, job.request.save_latents, latents_name(job.request.save_latents.string(), fields, clips_));
    set_name(job, job.request.save_frames, frames_name(job.request.save_frames.string(), fields, clips_));
    set_name(job, job.request.dump, frames_name(job.request.dump.string(), fields, clips_));
  }

  static void set_name(JobSpec& job, std::filesystem::path& asked, std::filesystem::path name) {
    // A typed path's folder must be there; that of a pattern, or of a list's own names, is made.
    const bool is_typed = asked.empty() || name == asked;
    const std::filesystem::path folder = folder_of(clip_stem(name));
    if (!name.empty() && !is_typed) job.new_folders.push_back(folder);
    asked = std::move(name);
  }

  void refuse_shared_names() const {
    std::map<std::string, const JobSpec*> seen;
    for (const JobSpec& job : jobs_) {
      if (!job.error.empty()) continue;
      for (const std::filesystem::path* path :
           {&job.request.output, &job.request.save_latents, &job.request.save_frames, &job.request.dump}) {
        if (path->empty()) continue;
        const auto [other, is_new] = seen.emplace(path->lexically_normal().string(), &job);
        if (is_new || other->second == &job) continue;
        throw ConfigError(fmt::format(
            "clips {} ({}) and {} ({}) would both be {}; give a pattern such as {{index:04}}_{{seed}} or a folder",
            other->second->index, other->second->place, job.index, job.place, path->string()));
      }
    }
  }

  const ConfigNode& effective_;
  const std::string& model_name_;
  std::vector<JobSpec> jobs_;
  int64_t clips_ = 0;
};

}  // namespace

std::vector<JobSpec> list_jobs(const ConfigNode& effective, const std::string& model_name) {
  return Lister(effective, model_name).run();
}

}  // namespace strobe::pipelines
