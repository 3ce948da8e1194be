"""The console in a real browser, with events flowing: live without a reload, for everybody, and to itself."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from selenium.webdriver.common.keys import Keys

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.browser import Browser
from pipeline_platform_tests.support.client import send_batch
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.console import ConsoleProcess
from pipeline_platform_tests.support.gateway import event, make_tenant
from pipeline_platform_tests.support.legacy import LegacyPipeline, turn
from pipeline_platform_tests.support.migration import accept, deliver_all
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
