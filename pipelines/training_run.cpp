#include "pipelines/training_run.h"

#include "core/torch.h"
// After the precompiled header.
#include <fcntl.h>
#include <unistd.h>

#include "config/yaml_loader.h"
#include "core/error.h"
#include "core/lock_file.h"
#include "core/log.h"
#include "core/output_file.h"
#include "core/timer.h"
#include "pipelines/training_samples.h"
#include "training/checkpoint.h"
#include "training/sprites/caption.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

namespace fs = std::filesystem;
using training::Position;
using training::StepReport;

// log.jsonl: one call a line, so that a kill leaves whole lines.
class RunLog {
 public:
  explicit RunLog(const fs::path& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0) throw_system("open", path.string(), errno);
  }
  ~RunLog() { ::close(descriptor_); }
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void write(const std::string& event, ConfigNode::Map fields) {
    fields.insert(fields.begin(), {"event", ConfigNode::string(event)});
    const std::string line = weights::to_json(ConfigNode::map(std::move(fields)), /*indent=*/-1) + "\n";
    write_all(descriptor_, line.data(), line.size(), path_);
  }

 private:
  fs::path path_;
  int descriptor_ = -1;
};

ConfigNode terms_node(const std::vector<std::pair<std::string, double>>& terms) {
  ConfigNode::Map map;
  for (const auto& [name, value] : terms) map.emplace_back(name, ConfigNode::number(value));
  return ConfigNode::map(std::move(map));
}

// Means over the steps since the last report.
class Window {
 public:
  void add(const StepReport& step) {
    ++steps_;
    loss_ += step.loss;
    norm_ += step.gradient_norm;
    rate_ = step.rate;
    samples_ += step.samples;
    last_batch_ = step.samples;
    milliseconds_ += step.milliseconds;
    drawing_ms_ += step.drawing_ms;
    optimizer_ms_ += step.optimizer_ms;
    flops_ += step.flops;
    if (terms_.size() != step.terms.size())
      terms_ = step.terms, std::for_each(terms_.begin(), terms_.end(), [](auto& t) { t.second = 0; });
    for (size_t i = 0; i < terms_.size(); ++i) terms_[i].second += step.terms[i].second;
  }
  bool is_empty() const { return steps_ == 0; }
  double seconds() const { return milliseconds_ / 1e3; }

  TrainingReport report(const training::Recipe& recipe, const Position& last) const {
    const training::StageRecipe& stage = recipe.stages[last.stage];
    const auto steps = static_cast<double>(steps_);
    TrainingReport report{.stage = stage.name,
                          .stage_index = last.stage,
                          .stages = recipe.stages.size(),
                          .step = last.step + 1,
                          .samples = std::min(last.samples + last_batch_, stage.samples),
                          .stage_samples = stage.samples,
                          .loss = loss_ / steps,
                          .gradient_norm = norm_ / steps,
                          .rate = rate_,
                          .samples_per_second = static_cast<double>(samples_) / seconds(),
                          .milliseconds = milliseconds_ / steps,
                          .drawing_ratio = drawing_ms_ / milliseconds_,
                          .optimizer_ratio = optimizer_ms_ / milliseconds_,
                          .gigaflops = flops_ / seconds() / 1e9,
                          .terms = terms_};
    for (auto& [name, value] : report.terms) value /= steps;
    report.eta_seconds = static_cast<double>(stage.samples - report.samples) / report.samples_per_second;
    return report;
  }

 private:
  int64_t steps_ = 0, samples_ = 0, last_batch_ = 0;
  double loss_ = 0, norm_ = 0, rate_ = 0, milliseconds_ = 0, drawing_ms_ = 0, optimizer_ms_ = 0, flops_ = 0;
  std::vector<std::pair<std::string, double>> terms_;
};

// The tokenizer of the model that is gone on with, or that of the sprites.
void place_tokenizer(const std::string& model, const fs::path& target) {
  std::error_code error;
  if (fs::exists(target, error)) return;
  const fs::path source = fs::path(model) / "tokenizer";
  OutputFolder folder(target);
  if (fs::is_directory(source, error)) {
    fs::copy(source, folder.path(), fs::copy_options::recursive, error);
    if (error) throw IoError(fmt::format("{}: {}", source.string(), error.message()));
  } else {
    training::sprites::write_tokenizer(folder.path());
  }
  folder.publish();
}

class Run {
 public:
  Run(const TrainingPlan& plan, const TrainingOptions& options, const TrainingEvents& events)
      : plan_(plan),
        options_(options),
        events_(events),
        log_(options.folder / "log.jsonl"),
        trainer_(plan.recipe, {.dtype = options.device.dtype,
                               .device = options.device.device,
                               .tokenizer = options.folder / "tokenizer"}) {}

  TrainingEnd run();

 private:
  void start();
  void note(const std::string& sentence) const {
    if (events_.on_note) events_.on_note(sentence);
  }
  void save();
  void report(const Window& window, const Position& last);
  void log_attention();
  void sample(const Position& at);
  bool is_stopped(int64_t steps) const {
    return (options_.most_minutes > 0 && since_start_.seconds() > options_.most_minutes * 60) ||
           (options_.most_steps > 0 && steps >= options_.most_steps);
  }

  const TrainingPlan& plan_;
  const TrainingOptions& options_;
  const TrainingEvents& events_;
  RunLog log_;
  training::Trainer trainer_;
  Timer since_start_, since_save_, since_samples_;
  Position saved_{.stage = SIZE_MAX};
};

void Run::start() {
  const auto found = training::load_checkpoint(options_.folder, plan_.recipe.stage_hashes);
  if (found && !options_.resumes) {
    throw ConfigError(
        fmt::format("{}: holds a training run already: --resume goes on with it, another --output begins anew",
                    options_.folder.string()));
  }
  if (!found) {
    if (options_.resumes) note(fmt::format("{}: no checkpoint yet, beginning", options_.folder.string()));
    write_file(options_.folder / "recipe.yaml", plan_.text);
    return;
  }
  trainer_.set_state(found->state);
  saved_ = trainer_.position();
  note(fmt::format("going on from {}: stage {} of {}, step {}, {} samples", found->path.string(),
                   std::min(saved_.stage + 1, plan_.recipe.stages.size()), plan_.recipe.stages.size(), saved_.step,
                   saved_.samples));
}

void Run::save() {
  const Position& now = trainer_.position();
  if (now.stage == saved_.stage && now.step == saved_.step) return;
  training::save_checkpoint(options_.folder, trainer_.state(), now.stage, plan_.recipe.stage_hashes);
  saved_ = now;
  since_save_ = Timer();
}

void Run::report(const Window& window, const Position& last) {
  const TrainingReport report = window.report(plan_.recipe, last);
  log_.write("train", {{"stage", ConfigNode::string(report.stage)},
                       {"step", ConfigNode::integer(report.step)},
                       {"samples", ConfigNode::integer(report.samples)},
                       {"loss", ConfigNode::number(report.loss)},
                       {"terms", terms_node(report.terms)},
                       {"gradient_norm", ConfigNode::number(report.gradient_norm)},
                       {"rate", ConfigNode::number(report.rate)},
                       {"samples_per_second", ConfigNode::number(report.samples_per_second)},
                       {"milliseconds", ConfigNode::number(report.milliseconds)},
                       {"gigaflops", ConfigNode::number(report.gigaflops)}});
  if (events_.on_report) events_.on_report(report);
}

// What ran, so that a run that was asked for a pattern shows that it was trained with it.
void Run::log_attention() {
  for (const training::RecordedRow& row : trainer_.attention_rows()) {
    log_.write("attention", {{"kind", ConfigNode::string(row.kind)},
                             {"pattern", ConfigNode::string(row.pattern)},
                             {"forward", ConfigNode::string(row.forward)},
                             {"backward", ConfigNode::string(row.backward)},
                             {"calls", ConfigNode::integer(row.calls)},
                             {"forward_ms", ConfigNode::number(row.forward_ms)},
                             {"backward_ms", ConfigNode::number(row.backward_ms)}});
    log_debug("{} attention in training: {} by {}, gradients by {}, {} calls", row.kind, row.pattern, row.forward,
              row.backward, row.calls);
  }
}

void Run::sample(const Position& at) {
  const SampleReport report = make_samples(trainer_, at, plan_, options_);
  ConfigNode::Map scores;
  for (const auto& [name, value] : report.scores) scores.emplace_back(name, ConfigNode::number(value));
  log_.write("samples", {{"stage", ConfigNode::string(report.stage)},
                         {"step", ConfigNode::integer(report.step)},
                         {"samples", ConfigNode::integer(report.samples)},
                         {"strip", ConfigNode::string(report.strip.string())},
                         {"scores", ConfigNode::map(std::move(scores))}});
  if (events_.on_samples) events_.on_samples(report);
  since_samples_ = Timer();
}

TrainingEnd Run::run() {
  start();
  Window window;
  int64_t steps = 0;
  TrainingEnd end = TrainingEnd::kDone;
  Position last;
  while (!trainer_.is_done()) {
    last = trainer_.position();
    window.add(trainer_.step());
    ++steps;
    const bool is_stage_over = trainer_.position().stage != last.stage;
    const bool is_interrupted = events_.is_interrupted && events_.is_interrupted();
    const bool is_over = is_interrupted || is_stopped(steps);
    if (is_stage_over || is_over || window.seconds() >= plan_.log_seconds) {
      report(window, last);
      // A stage that is over took its rows with it, but for the last one.
      if (!is_stage_over || trainer_.is_done()) log_attention();
      window = {};
    }
    if (is_stage_over || is_over || since_save_.seconds() >= plan_.checkpoint_minutes * 60) save();
    if (is_over) {
      end = is_interrupted ? TrainingEnd::kInterrupted : TrainingEnd::kStopped;
      break;
    }
    if (is_stage_over) {
      last = {.stage = last.stage, .step = last.step + 1, .samples = plan_.recipe.stages[last.stage].samples};
    } else {
      last = trainer_.position();
    }
    if (!trainer_.is_done() && (is_stage_over || since_samples_.seconds() >= plan_.sample_minutes * 60)) sample(last);
  }
  if (end != TrainingEnd::kInterrupted && steps > 0) sample(last);
  return trainer_.is_done() ? TrainingEnd::kDone : end;
}

}  // namespace

void export_model(const training::Trainer& trainer, const fs::path& tokenizer, const fs::path& folder,
                  const std::string& note, at::ScalarType dtype) {
  const models::CheckpointFiles files = trainer.model().files(trainer.statistics(), note, dtype);
  const fs::path fresh = folder.string() + ".new", old = folder.string() + ".old";
  std::error_code error;
  fs::remove_all(fresh, error);
  OutputFolder part(fresh);
  models::write_texts(files, part.path());
  fs::copy(tokenizer, part.path() / "tokenizer", fs::copy_options::recursive, error);
  if (error) throw IoError(fmt::format("{}: {}", tokenizer.string(), error.message()));
  for (const models::CheckpointWeights& weights : files.weights) {
    training::NamedTensors tensors;
    for (const auto& [name, tensor] : trainer.weights(weights.folder))
      tensors[name] = tensor.detach().cpu().to(weights.dtype);
    make_folders(part.path() / weights.folder);
    weights::save_safetensors(part.path() / weights.folder / (weights.stem + ".safetensors"), tensors,
                              {{"format", "pt"}});
  }
  part.publish();
  fs::remove_all(old, error);
  if (fs::exists(folder, error)) fs::rename(folder, old, error);
  fs::rename(fresh, folder, error);
  if (error) throw IoError(fmt::format("{}: rename: {}", folder.string(), error.message()));
  fs::remove_all(old, error);
}

TrainingEnd run_training(const TrainingPlan& plan, const TrainingOptions& options, const TrainingEvents& events) {
  make_folders(options.folder);
  check_folder_writable(options.folder);
  const fs::path lock_path = options.folder / "training.lock";
  const auto lock = LockFile::try_lock(lock_path);
  if (!lock) {
    const auto holder = LockFile::holder_of(lock_path);
    throw ConfigError(fmt::format("{}: another process{} trains here", options.folder.string(),
                                  holder ? fmt::format(" ({})", *holder) : ""));
  }
  place_tokenizer(plan.recipe.model, options.folder / "tokenizer");
  Run run(plan, options, events);
  return run.run();
}

}  // namespace strobe::pipelines
