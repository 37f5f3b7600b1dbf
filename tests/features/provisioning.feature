Feature: Provisioning
  Models are brought once, whole and verified, or not at all.

  @OC-POOL-3040
  Scenario: A model is downloaded once for two pools
    Given the model "shared" is known
    And the hive is running
    And pool "pool-0" is ready with model "shared"
    And pool "pool-1" is ready with model "shared"
    Then the model "shared" should be downloaded 1 times

  @OC-POOL-3040
  Scenario: A download that breaks off is resumed
    Given the hub answers "truncated" 1 times for model "flaky"
    And the hive is running
    When I preload pool "pool-0" with model "flaky"
    Then pool "pool-0" should become "ready"
    And the download of model "flaky" should have been resumed

  @OC-POOL-3040
  Scenario: A hub that is busy is asked again
    Given the hub answers "unavailable" 1 times for model "busy"
    And the hive is running
    When I preload pool "pool-0" with model "busy"
    Then pool "pool-0" should become "ready"

  @OC-POOL-3040
  Scenario: Bytes with a wrong checksum are never used
    Given the hub answers "wrong_bytes" 99 times for model "forged"
    And the hive is running
    When I preload pool "pool-0" with model "forged"
    Then pool "pool-0" should become "unready"
    And pool "pool-0" should tell the cause "checksum_mismatch"
    And no file of model "forged" should be in the cache
    And pool "pool-0" should never have started a process

  @OC-POOL-3002 @OC-POOL-3040
  Scenario: A pool whose model did not come tries again by itself
    Given the hub answers "wrong_bytes" 1 times for model "mended"
    And the hive is running
    When I preload pool "pool-0" with model "mended"
    Then pool "pool-0" should become "ready"
    And pool "pool-0" should have gone through "provisioning, unready, provisioning, starting, ready"

  @OC-POOL-3041
  Scenario: A forbidden download is an error that says so
    Given provisioning may not download
    And the model "far" is known
    And the hive is running
    When I preload pool "pool-0" with model "far"
    Then pool "pool-0" should become "unready"
    And pool "pool-0" should tell the cause "step_forbidden"
    And the model "far" should not have been asked for

  @OC-POOL-3001
  Scenario: Progress is told while a model loads
    Given the model "slow" is "fake:slow?load_delay_ms=600"
    And the hive is running
    When I preload pool "pool-0" with model "slow"
    Then pool "pool-0" should show progress between 0 and 1
    And pool "pool-0" should become "ready"

  @OC-POOL-3042
  Scenario: Tools that are missing are told at once, each with the command that installs it, before anything is fetched
    Given the engine "mine" is to be compiled from source
    And the machine has no "cmake"
    And the machine has no "make"
    And the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct" on engine "mine"
    Then pool "pool-0" should tell the cause "tools_missing"
    And pool "pool-0" should tell "sudo apt-get install cmake"
    And pool "pool-0" should tell "sudo apt-get install make"
    And pool "pool-0" should never have started a process
    And the model "llama-3.1-8b-instruct" should not have been asked for

  @OC-POOL-3042
  Scenario: An engine is compiled once for two pools, started, and proved
    Given the engine "mine" is to be compiled from source
    And the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct" on engine "mine"
    And I preload pool "pool-1" with model "llama-3.1-8b-instruct" on engine "mine"
    Then pool "pool-0" should become "ready"
    And pool "pool-1" should become "ready"
    And the engine "mine" should have been compiled 1 times
