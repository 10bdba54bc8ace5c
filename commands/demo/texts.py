"""What people write to the demo desk, and what it answers."""

from __future__ import annotations

from typing import Final, NamedTuple

from domain.priority import Priority
from domain.ticket_events import TicketType


class Matter(NamedTuple):
    """Something that goes wrong for people, told in one language.

    `{floor}`, `{order}` and `{device}` in the texts are filled in. `talk` alternates: the desk, the customer, the
    desk …; `again` is what a customer writes when it was not solved after all.
    """

    language: str
    team: str
    category: str
    type: TicketType
    priority: Priority
    subject: str
    body: str
    talk: tuple[str, ...]
    note: str
    third_party: str
    solution: str
    resolution_code: str
    again: str
    tags: tuple[str, ...]


SERVICE, NETWORK, BUSINESS, WORKPLACE = (
    "Service Desk",
    "Network Operations",
    "Business Applications",
    "Workplace & Devices",
)
TEAMS: Final = (SERVICE, NETWORK, BUSINESS, WORKPLACE)

MATTERS: Final[tuple[Matter, ...]] = (
    Matter(
        "en",
        SERVICE,
        "Access",
        TicketType.INCIDENT,
        Priority.HIGH,
        "Locked out of my account after the holiday",
        "Hello, I came back today and my password is no longer accepted. After three tries the account was locked. "
        "I have a customer call at two and need my mail before that.",
        (
            (
                "Good morning, I have unlocked your account. Please set a new password on the sign-in page; the old one "
                "ran out while you were away. Can you get in now?"
            ),
            "The page says that the new password was used before. I am quite sure that it was not.",
            "It remembers the last ten, and yours was the ninth. Please choose one that differs in more than a digit.",
        ),
        "Password expired on the first day of leave; the reminder went to a mailbox nobody reads on holiday.",
        "Identity provider support",
        "You are in again and the new password holds for a year. A reminder will reach you two weeks before.",
        "password-reset",
        "It happened again this morning: locked, although I have not typed anything wrong.",
        ("account", "password"),
    ),
    Matter(
        "zh-CN",
        SERVICE,
        "Access",
        TicketType.QUESTION,
        Priority.NORMAL,
        "新同事入职,怎么申请邮箱和门禁",
        "您好,下周一我们组有一位新同事报到。请问邮箱账号和门禁卡分别在哪里申请?需要提前几天?",
        (
            "您好,两项都可以在自助服务里选“新员工入职”一次提交,填写工号和到岗日期即可,一般提前两个工作日。",
            "已经提交了,但是门禁那一栏选不到我们 {floor} 楼,只能选到一楼大厅。",
            "{floor} 楼的门禁要由部门负责人确认,我已经把确认请求发给了您的主管。",
        ),
        "门禁楼层清单缺少 {floor} 楼,已提醒物业补充。",
        "物业管理处",
        "邮箱已开通,门禁卡放在前台,新同事凭身份证领取即可。祝工作顺利!",
        "request-fulfilled",
        "新同事今天刷卡还是进不了 {floor} 楼,麻烦再看一下。",
        ("onboarding", "门禁"),
    ),
    Matter(
        "en",
        NETWORK,
        "VPN",
        TicketType.INCIDENT,
        Priority.HIGH,
        "VPN drops every twenty minutes when I work from home",
        "Since the update on Monday the VPN disconnects about every twenty minutes and I have to sign in again each "
        "time. Calls break off in the middle. My home line is fine otherwise.",
        (
            (
                "Thank you for the exact description. Could you send us the client's log right after the next drop? It is "
                "under Help, Collect diagnostics."
            ),
            "Attached to my mail of just now. It dropped at 10:42 and again at 11:03.",
            "The log shows that the session key is not renewed. We are rolling the gateway back tonight.",
        ),
        "Re-keying fails on gateway 2 since the firmware update; gateway 1 is fine.",
        "Gateway vendor",
        "The gateway runs on the earlier firmware and sessions now stay up; the longest has lasted nine hours.",
        "configuration-changed",
        "It was quiet for two days, and this morning it dropped twice before nine.",
        ("vpn", "home-office"),
    ),
    Matter(
        "zh-CN",
        NETWORK,
        "Wi-Fi",
        TicketType.INCIDENT,
        Priority.NORMAL,
        "{floor} 楼会议室无线网络很慢",
        "{floor} 楼东侧会议室的无线网从昨天下午开始特别慢,视频会议卡顿,网页要等十几秒才能打开,换有线就正常。",
        (
            "您好,我们正在查看 {floor} 楼的无线接入点。请问同一间会议室里其他同事的电脑也慢吗?",
            "都慢,手机也一样。走到走廊里就好了。",
            "明白了,问题在会议室的接入点上,我们今天下班后更换。",
        ),
        "接入点 {device} 的信道与隔壁公司的重叠,重启无效。",
        "楼宇弱电供应商",
        "接入点已更换并调整信道,现场测速下行 320 Mbps,请再试试。",
        "hardware-replaced",
        "今天上午开会时又开始卡了,和之前一样。",
        ("wifi", "会议室"),
    ),
    Matter(
        "en",
        NETWORK,
        "Firewall",
        TicketType.TASK,
        Priority.NORMAL,
        "Please open the port for our new label printer",
        "We have put up a new label printer in the warehouse ({device}). It needs port 9100 from the shipping "
        "workstations. The order number is {order}.",
        (
            (
                "We can do that in tonight's window. Which workstations will print: all of shipping, or only the two at "
                "gate 4?"
            ),
            "Only the two at gate 4, please.",
        ),
        "Change approved by the warehouse manager on the phone.",
        "Change board",
        "The rule is live since 22:10 and a test label came out at gate 4.",
        "change-completed",
        "Gate 4 prints, but after the printer was restarted it has another address and nothing comes through.",
        ("change", "printer"),
    ),
    Matter(
        "en",
        BUSINESS,
        "Invoicing",
        TicketType.PROBLEM,
        Priority.URGENT,
        "Invoices of order {order} are created twice",
        "Every invoice for order {order} is in the system two times since last night, with different numbers. Three of "
        "them have already gone out to the customer. Please stop this before the evening run.",
        (
            (
                "We have paused the evening run for your company code, so no more will go out. We are now comparing both "
                "sets."
            ),
            "Thank you. The customer has called already and would like a written statement.",
            (
                "The nightly job ran twice after a restart. We are cancelling the second set; you will get the list to "
                "send to your customer within the hour."
            ),
        ),
        "Job scheduler lost its lock at 01:14 during the restart and started a second instance.",
        "ERP vendor support",
        "All 41 duplicates are cancelled, credit notes were created, and the job now refuses to start twice.",
        "data-corrected",
        "Two of the cancelled invoices show as open again in this morning's list.",
        ("billing", "duplicate"),
    ),
    Matter(
        "zh-CN",
        BUSINESS,
        "Expenses",
        TicketType.INCIDENT,
        Priority.NORMAL,
        "报销单提交后一直显示“处理中”",
        "我上周三提交的差旅报销单(单号 {order})到今天还是“处理中”,主管说他那里没有收到审批提醒,麻烦帮忙查一下卡在哪一步。",
        (
            "您好,查到了:单据停在“发票验真”这一步,其中一张高铁票的号码没有识别出来。请您把那张票重新拍一张清晰的照片上传。",
            "已经重新上传了,请看一下。",
            "收到,验真已通过,单据现在到您主管那里了。",
        ),
        "OCR 把票号末位 8 识别成了 B,同类问题本月第三次。",
        "发票验真服务商",
        "主管已审批,款项预计本周五到账。",
        "workaround-given",
        "周五没有收到款,系统里又退回到“处理中”了。",
        ("报销", "ocr"),
    ),
    Matter(
        "en",
        BUSINESS,
        "Reporting",
        TicketType.QUESTION,
        Priority.LOW,
        "How do I get last quarter's figures by region?",
        "I find the sales report by product but not by region. Is there one, or do I have to add the sheets up myself?",
        (
            (
                "There is: open the report, choose Layout, and take “Region by quarter”. Your role can see all regions "
                "except the ones opened this year."
            ),
            "Found it. Could the new regions be added? We need them for the board on the 15th.",
        ),
        "Asked data protection whether the new regions may be shown; they may.",
        "Data warehouse team",
        "The new regions are in the layout from tonight on; the figures of this quarter are complete.",
        "information-given",
        "The Nordic region is still missing, everything else is there.",
        ("reporting",),
    ),
    Matter(
        "zh-CN",
        BUSINESS,
        "CRM",
        TicketType.PROBLEM,
        Priority.HIGH,
        "客户资料导出后中文变成乱码",
        "从 CRM 导出的客户名单用表格软件打开后,所有中文都是乱码,英文和电话正常。明天要给展会用,比较着急。",
        (
            "您好,请先用“数据 → 从文本导入”,编码选 UTF-8,这样可以马上用。我们同时修正导出设置。",
            "按您说的导入后正常了,谢谢!但是同事们都不会,最好直接能打开。",
        ),
        "导出缺少 BOM,老版本表格软件按本地编码打开。",
        "CRM 厂商",
        "导出文件已带编码标记,双击即可正常打开,请您确认。",
        "software-fixed",
        "联系人那一页导出还是乱码,公司那一页好了。",
        ("crm", "导出"),
    ),
    Matter(
        "en",
        WORKPLACE,
        "Printing",
        TicketType.INCIDENT,
        Priority.NORMAL,
        "Printer on floor {floor} jams with every second page",
        "The big printer next to the kitchen on floor {floor} ({device}) jams on two-sided prints. One-sided works. "
        "We have already taken out all the paper and put it back in.",
        (
            "Thank you. Please use the one by the lifts for now; a technician comes between one and three.",
            "He was here and it worked for ten minutes, then the same again.",
        ),
        "Duplex rollers worn, 410,000 pages on the counter.",
        "Printer maintenance contractor",
        "The duplex unit was replaced and fifty test sheets went through without a jam.",
        "hardware-replaced",
        "It jams again, though only with the thick paper this time.",
        ("printer",),
    ),
    Matter(
        "zh-CN",
        WORKPLACE,
        "Laptop",
        TicketType.INCIDENT,
        Priority.HIGH,
        "笔记本 {device} 充不进电,明天要出差",
        "我的笔记本({device})从今天早上开始充不进电,换了同事的充电器也一样,现在只剩 12%。明天一早要去上海见客户。",
        (
            "您好,听起来像是充电接口的问题。请您现在带电脑到 {floor} 楼服务台,我们先借您一台备用机。",
            "备用机拿到了,资料也同步好了,非常感谢。我的那台大概什么时候能修好?",
            "厂商工程师后天上门更换接口板,修好后我们通知您。",
        ),
        "C 口接口板松动,仍在保修期内,已登记厂商工单。",
        "电脑厂商上门服务",
        "接口板已更换,充电测试正常,您出差回来可以随时来取。",
        "hardware-repaired",
        "昨天取回来用了一晚,今天又充不进电了。",
        ("laptop", "保修"),
    ),
    Matter(
        "en",
        WORKPLACE,
        "Equipment",
        TicketType.TASK,
        Priority.LOW,
        "Second monitor for the new desk on floor {floor}",
        "Our new colleague started on Monday and has one monitor only. Could she get a second one, please? The cost "
        "centre is the team's own.",
        (
            "Of course. We have two models in stock, 24 and 27 inches; which would she like?",
            "The larger one, please, with an arm if there is one.",
        ),
        "Taken from stock; arm on order.",
        "Furniture supplier",
        "The monitor and its arm are on the desk and connected.",
        "request-fulfilled",
        "The picture flickers after the screen wakes up, on the new monitor only.",
        ("equipment", "onboarding"),
    ),
    Matter(
        "zh-CN",
        SERVICE,
        "Security",
        TicketType.INCIDENT,
        Priority.URGENT,
        "收到可疑邮件,要求“立即验证工资账户”",
        "今天收到一封自称人力资源部的邮件,要求点击链接验证工资账户,发件地址很奇怪。组里有两位同事已经点开了,还没有输入密码。",
        (
            "谢谢您及时上报!请不要再点击,也请那两位同事现在改密码。我们已在邮件网关拦截同类邮件。",
            "两位同事都改了密码。电脑需要检查吗?",
            "我们已远程扫描,没有发现异常,今天之内会再查一遍登录记录。",
        ),
        "同一链接共 37 人收到,2 人点击,0 人提交。",
        "邮件安全服务商",
        "已确认没有账号被盗用,链接已全部拦截,感谢您的警惕。",
        "security-contained",
        "今天又收到一封几乎一样的,发件人换了。",
        ("phishing", "security"),
    ),
    Matter(
        "en",
        SERVICE,
        "Telephony",
        TicketType.INCIDENT,
        Priority.NORMAL,
        "Callers hear music and then nothing",
        "Customers tell us that they hear the waiting music and then silence when we take the call. It happens with "
        "about every fifth call since this morning, on all our phones.",
        (
            "We can see it in the call records. Does it also happen with calls from inside the company?",
            "No, only from outside.",
            "One of the four lines of the provider does not carry sound. We have taken it out while they repair it.",
        ),
        "Trunk 3, one-way audio, provider ticket opened.",
        "Telephone provider",
        "The line was repaired and tested, and all four are in use again.",
        "provider-fixed",
        "Two customers have reported the same silence today.",
        ("telephony",),
    ),
    Matter(
        "zh-CN",
        NETWORK,
        "VPN",
        TicketType.QUESTION,
        Priority.LOW,
        "在国外出差可以用公司 VPN 吗",
        "下个月要去德国出差两周,请问在酒店可以正常使用公司 VPN 吗?需要提前申请什么?",
        (
            "您好,可以使用。出发前请在自助服务里登记“境外访问”,填写国家和起止日期,到期自动关闭。",
            "已登记,谢谢。手机上的验证器在国外也能用吗?",
            "可以,验证码不依赖网络。建议再绑定一个备用验证方式,以防手机丢失。",
        ),
        "境外访问已按日期放行。",
        "信息安全部",
        "登记已生效,祝您出差顺利。",
        "information-given",
        "已经到德国了,连接时提示“所在地区未授权”。",
        ("vpn", "出差"),
    ),
    Matter(
        "en",
        BUSINESS,
        "Shop",
        TicketType.INCIDENT,
        Priority.HIGH,
        "Order {order} was paid but shows as unpaid",
        "I paid for order {order} by card two days ago, the money has left my account, and your shop still asks me to "
        "pay. Please do not cancel the order.",
        (
            (
                "I am sorry about this. Your order is marked so that it cannot be cancelled. Could you tell us the last "
                "four digits of the card and the amount?"
            ),
            "The card ends in 4471, and the amount was 238.90.",
            (
                "Found: the payment arrived under the basket's number instead of the order's. Our accounting joins the "
                "two today."
            ),
        ),
        "Payment reference cut after twelve characters by the provider.",
        "Payment provider",
        "The payment is booked, the order leaves the warehouse tomorrow, and shipping is on us.",
        "data-corrected",
        "I have received a payment reminder for the same order.",
        ("payment", "shop"),
    ),
)

THANKS: Final = {
    "en": ("Works again, thank you for the quick help!", "Perfect, that was it. Thanks.", "All fine now, thank you."),
    "zh-CN": ("已经好了,谢谢!", "没问题了,辛苦了。", "可以了,感谢这么快处理。"),
}
WAITS: Final = {
    "en": "Could you please send us a picture of the message, or the exact words? We go on as soon as we have it.",
    "zh-CN": "麻烦您把提示信息的截图或原文发给我们,收到后我们马上继续处理。",
}
ANSWERS: Final = {
    "en": "Here it is; I have copied the whole message into this mail.",
    "zh-CN": "已经截图发送,请查收。",
}
ESCALATIONS: Final = {
    "en": "The first line has tried everything in the guide; this needs a specialist.",
    "zh-CN": "一线按手册处理无效,需要专业组支持。",
}
