// Step caches: which transformer blocks a step recomputes. Listed in step_caches.inc.
#pragma once
