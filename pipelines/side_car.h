// What a clip says of itself: the JSON beside it, and the same text in its container's comment tag.
//
// Contract  `request` holds every setting that shapes the clip, decided, under the names of generate's keys: composed
//           again it is the same clip. `request_hash` is the SHA-256 of those settings with the container's extension and
//           fingerprints of all weights in place of paths, so that it says whether two requests are for the same file
//           wherever their weights lie. Threads and offload do not count: they are recorded under `ran`.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/config_node.h"
#include "pipelines/pipeline.h"

namespace strobe::pipelines {

inline constexpr const char* kSideCarKind = "strobe clip";

// Settings of the run that every clip shares.
struct RunFacts {
  Device device;
  Offload offload = Offload::kNone;
  std::string model;                           // as it was asked for
  std::map<std::string, std::string> weights;  // fingerprints by part
  std::map<std::string, std::string> files;    // of LoRAs and start latents, by path
  ConfigNode build = ConfigNode::map();
  ConfigNode machine = ConfigNode::map();
};

// Fingerprints of the model's parts, and of the files that the job reads.
void add_fingerprints(const models::ModelFolder& folder, RunFacts& facts);
void add_fingerprints(const Job& job, RunFacts& facts);

ConfigNode decided_settings(const Job& job, const RunFacts& facts);
std::string request_hash(const Job& job, const RunFacts& facts);

struct SideCarSource {
  const Job& job;
  const ConfigNode& effective;
  const std::string& place;
  const models::ModelInfo& info;
  const RunFacts& facts;
  const std::string& request_hash;
  const Result& result;
};
std::string side_car_text(const SideCarSource& source);

// "clips/a.json" for "clips/a.mp4", unless that is another clip's or no side-car: then "clips/a.mp4.json".
std::filesystem::path side_car_path(const std::filesystem::path& output);

// The side-car of an output, as JSON; null where there is none or it is not readable as one.
ConfigNode find_side_car(const std::filesystem::path& output);

}  // namespace strobe::pipelines
